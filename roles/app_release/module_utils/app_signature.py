"""Says why an artifact does not count as signed, by OpenSSH's signatures (PROTOCOL.sshsig) and its ssh-keygen(1).

The controller asks this of its own files, and a host of all that it is about to unpack. ssh-keygen has the last word;
what is read here of a signature only serves to say what is wrong with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

SUFFIX = ".sig"  # a signature is beside what it signs, under that name with this appended
OCTETS = 64 << 10  # no signature is near that long
# A user without rights has to reach the files that ssh-keygen reads, and nobody but root may place a file there.
PLACE = Path("/run")
NOBODY = 65534  # its number on all systems, as user and as group
ARMOR = re.compile(rb"\s*-----BEGIN SSH SIGNATURE-----\s+([A-Za-z0-9+/=\s]+?)\s*-----END SSH SIGNATURE-----\s*")
MAGIC = b"SSHSIG"


def beside(artifact: Path) -> Path:
    """Where the signature of a file is."""
    return artifact.with_name(artifact.name + SUFFIX)


@dataclass(frozen=True)
class Signers:
    """Who may sign the artifacts of a service: `allowed` and `revoked` are the texts of ssh-keygen's two files.

    No text in `allowed` means that no signature is asked for. Messages name the variables ``<service>_artifact_…``.
    """

    service: str
    allowed: str = ""
    revoked: str = ""

    def __bool__(self) -> bool:
        return bool(self.allowed)

    @property
    def namespace(self) -> str:
        """What a signature has to be made for, so that none which was made for another purpose counts."""
        return f"{self.service}-artifact"

    @property
    def variable(self) -> str:
        return f"{self.service}_artifact_signers"

    def digest(self) -> str:
        """One SHA-256 over all that decides whose signature counts, in hexadecimal; "" where none is asked for."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest() if self else ""


def missing(signers: Signers, place: str, reason: str = "") -> str:
    """The fault of an artifact without a signature; `place` is where that was looked for."""
    return (
        f"it is not signed: there is no signature at {place}{f' ({reason})' if reason else ''}, and {signers.variable} "
        f"asks for one. Sign the artifact (ssh-keygen -Y sign -n {signers.namespace} -f KEY FILE) and put the "
        "signature there."
    )


def refusal(content: bytes, signature: Path, signers: Signers) -> str:
    """Why an artifact with this content, whose signature is to be at that path, is refused; "" where it is not.

    The text is what follows "…, and " in a message that has named the artifact.
    """
    if not signers:
        return ""
    if not signature.is_file():
        return missing(signers, str(signature))
    with signature.open("rb") as file:
        return fault(content, file.read(OCTETS), signers)


def fault(content: bytes, signature: bytes, signers: Signers) -> str:
    """Why the signature of an artifact with this content does not count, or "" where it does; as in `refusal`."""
    try:
        made_for = namespace(signature)
    except ValueError as error:
        return f"its signature is none of OpenSSH's ({error}). {_anew(signers)}"
    if made_for != signers.namespace:
        return f'its signature was made for "{made_for}", and not for "{signers.namespace}". {_anew(signers)}'
    try:
        with _files(signature, signers) as files:
            return _fault(content, signers, *files)
    except OSError as error:
        return (
            f"its signature can't be verified on {os.uname().nodename}: {error}. Install OpenSSH's ssh-keygen there "
            "(openssh-client on Debian and Ubuntu, openssh elsewhere), and let everybody run it."
        )


def _anew(signers: Signers) -> str:
    return f"Sign it anew: ssh-keygen -Y sign -n {signers.namespace} -f KEY FILE."


def namespace(signature: bytes) -> str:
    """What a signature says that it was made for. Raises ValueError where it is none."""
    armored = ARMOR.fullmatch(signature)
    if not armored:
        raise ValueError("it does not begin and end as those do")
    try:
        blob = base64.b64decode(b"".join(armored[1].split()), validate=True)
        (version,) = struct.unpack_from(">I", blob, len(MAGIC))
        if not blob.startswith(MAGIC) or version != 1:
            raise ValueError("it is of an unknown version")
        _, after_key = _string(blob, len(MAGIC) + 4)
        made_for, _ = _string(blob, after_key)
    except (binascii.Error, struct.error) as error:
        raise ValueError("it is cut short or damaged") from error
    return made_for.decode("utf-8", "backslashreplace")


def _string(blob: bytes, start: int) -> tuple[bytes, int]:
    """A string of SSH's (RFC 4251, section 5), and where it ends."""
    (length,) = struct.unpack_from(">I", blob, start)
    end = start + 4 + length
    if end > len(blob):
        raise struct.error("a string is longer than what holds it")
    return blob[start + 4 : end], end


@contextmanager
def _files(signature: bytes, signers: Signers) -> Iterator[tuple[str, str, str]]:
    """Write what ssh-keygen reads; yield the paths of the signature, the signers and the revoked keys."""
    texts = {"signature": signature, "allowed": signers.allowed.encode(), "revoked": signers.revoked.encode()}
    with tempfile.TemporaryDirectory(prefix="artifact-", dir=PLACE if _drops_rights() else None) as name:
        directory = Path(name)
        directory.chmod(0o755)
        for file, text in texts.items():
            (directory / file).write_bytes(text if text.endswith(b"\n") else text + b"\n")
            (directory / file).chmod(0o644)
        yield str(directory / "signature"), str(directory / "allowed"), str(directory / "revoked")


def _drops_rights() -> bool:
    return os.geteuid() == 0 and PLACE.is_dir()


def _fault(content: bytes, signers: Signers, signature: str, allowed: str, revoked: str) -> str:
    principals = _ask("find-principals", b"", "-s", signature, "-f", allowed).stdout.split("\n")
    verify = [("-n", signers.namespace, "-s", signature, "-f", allowed, "-I", name) for name in principals if name]
    revoking = ("-r", revoked) if signers.revoked else ()
    answers = [_ask("verify", content, *arguments, *revoking) for arguments in verify]
    if any(answer.returncode == 0 for answer in answers):
        return ""
    # Who may sign is left out of this question, which tells a stranger's signature from one of other content.
    whole = _ask("check-novalidate", content, "-n", signers.namespace, "-s", signature)
    if whole.returncode:
        return (
            "it is not what was signed: it has been changed since, or its signature belongs to another artifact. Take "
            f"both from where they were made. ssh-keygen says: {_said(whole)}"
        )
    key = whole.stdout.strip().rpartition(" with ")[2]
    if revoking and any(_ask("verify", content, *arguments).returncode == 0 for arguments in verify):
        return (
            f"it was signed with the {key}, which {signers.service}_artifact_revoked lists. Sign it with a key that "
            "still counts."
        )
    said = f" ssh-keygen says: {_said(answers[-1])}" if answers else ""
    return (
        f"it was signed with the {key}, which {signers.variable} does not allow. Sign it with a key that is listed "
        f"there, or add this one.{said}"
    )


def _ask(action: str, content: bytes, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What ssh-keygen answers. It reads what strangers have written, so root has it run as nobody."""
    rights: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if _drops_rights() else {}
    done = subprocess.run(
        ["ssh-keygen", "-Y", action, *arguments], input=content, capture_output=True, cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}, **rights,
    )  # fmt: skip
    said = (done.stdout.decode("utf-8", "backslashreplace"), done.stderr.decode("utf-8", "backslashreplace"))
    return subprocess.CompletedProcess(done.args, done.returncode, *said)


def _said(answer: subprocess.CompletedProcess[str]) -> str:
    return " ".join((answer.stderr + answer.stdout).split()) or f"exit code {answer.returncode}"
