"""What to build a release from and by, and how its builders run programs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.app_signature import Signers, beside

# No program starts in a release's directory, so that neither Python nor pip takes a file there for one of its own.
ELSEWHERE = Path("/")


class BuildError(Exception):
    """The release could not be built; the message says why, and what to do.

    `unbuilt` says whether a package without a wheel could not be built, for which a compiler may be missing.
    """

    unbuilt = False


@dataclass(frozen=True)
class Plan:
    """What to build: a zip of this SHA-256 and kind, into this directory, for the service of this name."""

    artifact: Path
    sha256: str
    release: Path
    interpreter: str = ""  # what makes the venv of a release of Python
    index_url: str = ""  # may hold a password; "" for pip's own
    require_hashes: bool = True  # of what comes from an index
    ca_bundle: str = ""  # vouches for the index or the proxy; "" for the program's own
    kind: str = "python"  # or go, or binary
    name: str = ""
    compiler: str = ""  # what builds a release of Go
    go_proxy: str = ""  # may hold a password; "" for the compiler's own
    signers: str = ""  # who may sign the artifact, as ssh-keygen(1) has it; "" where no signature is asked for
    revoked: str = ""  # public keys that may not, whatever `signers` says

    @property
    def signed_by(self) -> Signers:
        """Whose signature of the artifact counts."""
        return Signers(self.name, self.signers, self.revoked)

    @property
    def signature(self) -> Path:
        """Where the artifact's signature is, if it has one."""
        path: Path = beside(self.artifact)
        return path


def plan_of(values: Mapping[str, Any]) -> Plan:
    """The plan made of these values, whose keys are the names of its fields."""
    paths = {name: Path(values[name]) for name in ("artifact", "release")}
    return Plan(**{**values, **paths})


def run(command: list[str], environment: Mapping[str, str], directory: Path = ELSEWHERE, **options: Any) -> str:
    """What a command prints. Raises BuildError with that, where the command fails.

    `options` are those of `subprocess.run`, besides the usual ones.
    """
    done = subprocess.run(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", **options,
    )  # fmt: skip
    if done.returncode:
        raise BuildError(done.stdout.strip() or f"`{' '.join(command)}` failed with exit code {done.returncode}")
    return str(done.stdout)
