"""Build the artifact: `python -m dispatch_app.artifact dist/dispatch.zip`.

The artifact is a zip with `dispatch_app/`, its hash-pinned `requirements.txt`, the wheels that this
names and, in `installer/`, the wheel of pip, so that a host without a package index and without pip can build
its venv. The same sources give the same bytes: entries are sorted and not compressed, and their
times and modes are fixed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PYTHONS = ("3.10", "3.11", "3.12", "3.13")  # those that supported distributions run the service with
_PACKAGE = Path(__file__).parent
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment a zip entry can have


def wheels(requirements: Path, directory: Path) -> list[Path]:
    """Download the pinned wheels for every supported Python; return them sorted.

    Only py3-none-any wheels are accepted, so each fits every architecture. Raises
    subprocess.CalledProcessError if there is no such wheel or a hash differs.
    """
    for python in PYTHONS:
        subprocess.run(  # noqa: S603 - fixed words and paths, no shell
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                "--require-hashes", "--only-binary", ":all:", "--implementation", "py",
                "--abi", "none", "--platform", "any", "--python-version", python,
                "--requirement", requirements, "--dest", directory,
            ],
            check=True,
        )  # fmt: skip
    return sorted(directory.glob("*.whl"))


def build(files: dict[str, bytes]) -> bytes:
    """Return a zip of `files`, a mapping of path to content; its bytes depend on nothing else."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # Unix, so that the mode below counts
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def contents(package: Path, pinned: dict[str, list[Path]]) -> dict[str, bytes]:
    """Return what belongs in the artifact, path to content; `pinned` maps its directories to their wheels."""
    builder = package / "artifact.py"  # which a host has no use for
    files = {f"dispatch_app/{f.relative_to(package).as_posix()}": f for f in package.rglob("*.py") if f != builder}
    files["__main__.py"] = package / "standalone.py"
    files["requirements.txt"] = package / "requirements.txt"
    files.update((f"{directory}/{wheel.name}", wheel) for directory, some in pinned.items() for wheel in some)
    return {name: file.read_bytes() for name, file in files.items()}


def main(argv: list[str]) -> int:
    """Write the artifact to the one path given."""
    parser = argparse.ArgumentParser(
        prog="python -m dispatch_app.artifact",
        description="Build the artifact, the zip that the roles install: the consumer, the pinned wheels of what it "
        "needs, which pip downloads, and pip's own. Prints its size and its SHA-256; the same sources give the same "
        "bytes.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the zip to write, such as dist/dispatch.zip")
    target: Path = parser.parse_args(argv).file
    with tempfile.TemporaryDirectory() as directory:
        try:
            pinned = {
                "wheels": wheels(_PACKAGE / "requirements.txt", Path(directory, "wheels")),
                "installer": wheels(_PACKAGE / "installer.txt", Path(directory, "installer")),
            }
        except subprocess.CalledProcessError as error:
            print(f"pip could not get the pinned wheels (exit code {error.returncode})", file=sys.stderr)
            return 1
        content = build(contents(_PACKAGE, pinned))
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(target)  # whoever reads the artifact meanwhile has the old one or the new one, whole
    print(f"{target} {len(content)} bytes sha256 {hashlib.sha256(content).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
