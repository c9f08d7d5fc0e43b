"""Keys, and artifacts that are signed with them in every way that counts and in every way that doesn't."""

from __future__ import annotations

import io
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

NAMESPACE = "dispatch-artifact"


class Keys:
    """Key pairs by name, made when they are first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> Path:
        path = self.directory / name
        if not path.exists():
            keygen("-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
        return path

    def public(self, name: str) -> str:
        return Path(f"{self.path(name)}.pub").read_text()

    def sign(self, name: str, content: bytes, namespace: str = NAMESPACE) -> bytes:
        return keygen("-Y", "sign", "-f", str(self.path(name)), "-n", namespace, content=content)


def keygen(*arguments: str, content: bytes = b"") -> bytes:
    return subprocess.run(["ssh-keygen", *arguments], input=content, capture_output=True, check=True).stdout


@dataclass(frozen=True)
class Case:
    """An artifact and its signature, who may sign, and what has to be said of them; nothing where they count."""

    name: str
    content: bytes
    signature: bytes | None
    signers: str
    revoked: str = ""
    said: str = ""


def zipped(kind: str = "python", text: str = "") -> bytes:
    """An artifact of a kind; with the same text, the same octets."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(zipfile.ZipInfo({"python": "requirements.txt", "go": "main.go"}[kind]), text)
    return held.getvalue()


def cases(keys: Keys, content: bytes, other: bytes) -> list[Case]:
    """What can be right or wrong with the signature of an artifact; `other` is the content that it was changed to."""
    good = keys.sign("release", content)
    key = keys.public("release")
    ours = f"release@shop {key}"
    return [
        Case("signed", content, good, f"# who may\n\n{ours}"),
        Case("signed by one of several", content, good, f"ci@shop {keys.public('stranger')}{ours}"),
        Case("unsigned", content, None, ours, said="it is not signed: there is no signature at "),
        Case("another's signature", content, keys.sign("stranger", content), ours, said="signers does not allow. Sign"),
        Case(
            "another purpose", content, keys.sign("release", content, "file"), ours,
            said='its signature was made for "file", and not for "dispatch-artifact". Sign it anew',
        ),
        Case("a revoked key", content, good, ours, key, "which dispatch_artifact_revoked lists"),
        Case("another key revoked", content, good, ours, keys.public("stranger")),
        Case("tampered with", other, good, ours, said="it is not what was signed: it has been changed since"),
        Case("damaged", content, good.replace(b"U1NIU0lH", b"A" * 8), ours, said="its signature is none of OpenSSH's"),
        Case("cut short", content, good[:100], ours, said="its signature is none of OpenSSH's"),
        Case("empty", content, b"", ours, said="its signature is none of OpenSSH's"),
        Case("expired", content, good, f'release valid-before="20200101" {key}', said="does not allow"),
        Case("for git alone", content, good, f'release namespaces="git" {key}', said="does not allow"),
    ]  # fmt: skip
