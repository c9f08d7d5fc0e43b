"""Build the artifact: `python -m dispatch_app.artifact dist/dispatch.zip`.

The artifact is a zip with `dispatch_app/`, its hash-pinned `requirements.txt`, the wheels that this
names and, in `installer/`, the wheel of pip, so that a host without a package index and without pip can build
its venv. In `tracing/` it has what the hash-pinned wheels of `tracing.txt` hold, which nothing imports unless spans are
to be exported; and `sbom.cdx.json`, which is also written beside it, lists all of these. The same sources give the same
bytes: entries are sorted and not compressed, and their times and modes are fixed.

A shop's own code, which Dispatch then calls as its hook, and what that requires can be packed beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from . import __version__, sbom

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")  # those that supported distributions run the service with
_PACKAGE = Path(__file__).parent
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment a zip entry can have
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(\[[^]]*\])?==[^\s;]+( *;[^#]*?)?( +--hash=sha256:[0-9a-f]{64})+")


class ShopError(Exception):
    """A shop's code or its requirements can't be packed; the text says why and what to do."""


def wheels(requirements: Path, directory: Path) -> list[Path]:
    """Download the pinned wheels for every supported Python; return them sorted.

    Only py3-none-any wheels are accepted, so each fits every architecture. Raises
    subprocess.CalledProcessError if there is no such wheel or a hash differs.
    """
    for python in PYTHONS:
        _run(
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--require-hashes", "--only-binary", ":all:", "--implementation", "py",
            "--abi", "none", "--platform", "any", "--python-version", python,
            "--requirement", requirements, "--dest", directory,
            check=True,
        )  # fmt: skip
    return sorted(directory.glob("*.whl"))


def _run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, text=True, **options)  # noqa: S603 - fixed words and paths, no shell


def commit(package: Path) -> str:
    """The commit that last changed a package, with -dirty if it has changed since; "" where git can't tell.

    That of the whole repository would make another artifact of the same sources.
    """
    git = shutil.which("git")
    # Whoever owns the checkout, its code runs already.
    command = [git or "", "-c", "safe.directory=*", "-C", str(package)]
    if not git or _run(*command, "rev-parse", capture_output=True).returncode:
        return ""
    last = _run(*command, "log", "-1", "--format=%H", "--", ".", capture_output=True).stdout.strip()
    changed = _run(*command, "status", "--porcelain", "--", ".", capture_output=True).stdout.strip()
    return f"{last}-dirty" if last and changed else last


def unpacked(wheels: list[Path]) -> dict[str, bytes]:
    """Return what pure wheels hold and a service runs, path to content, as it would lie in one directory.

    Packages that spread over several wheels are found in a zip only by entries of their directories, whose paths end in
    a slash (zipimport, before Python 3.13).
    """
    files: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith((".pyi", ".proto")):  # for type checkers and compilers
                    continue
                files[name] = archive.read(name)
                files.update({f"{parent}/": b"" for parent in PurePosixPath(name).parents if parent.name})
    return files


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
    builder = (package / "artifact.py", package / "sbom.py")  # which a host has no use for
    files = {f"dispatch_app/{f.relative_to(package).as_posix()}": f for f in package.rglob("*.py") if f not in builder}
    files["__main__.py"] = package / "standalone.py"
    files["requirements.txt"] = package / "requirements.txt"
    files.update((f"{directory}/{wheel.name}", wheel) for directory, some in pinned.items() for wheel in some)
    return {name: file.read_bytes() for name, file in files.items()}


def shop_files(directory: Path, wheels: list[Path]) -> dict[str, Path]:
    """Return what is to be packed of a shop's package, by its path in the artifact. Raises ShopError.

    Its name must be that of no other module, because one of the two would be imported in the other's place.
    """
    name = directory.resolve().name
    if not directory.is_dir():
        raise ShopError(f"--with {directory} is not a directory; give the directory of a Python package")
    modules = {name for wheel in wheels for name in _modules(wheel)}
    taken = {_PACKAGE.name, "wheels", "installer", "tracing", "venv", *sys.stdlib_module_names, *modules}
    if name in taken:
        raise ShopError(f"--with {directory}: {name} is the name of something that Dispatch has; rename the directory")
    if not name.isidentifier():
        raise ShopError(f"--with {directory}: {name} is no name that Python imports; rename the directory")
    files = {file.relative_to(directory): file for file in directory.rglob("*") if file.is_file()}
    packed = {
        f"{name}/{path.as_posix()}": file for path, file in files.items()
        if not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }  # fmt: skip
    if not any(path.endswith(".py") for path in packed):
        raise ShopError(f"--with {directory} has no Python file; give the directory of a Python package")
    return packed


def _modules(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.split("/")[0].removesuffix(".py") for entry in archive.namelist()}


def requirements(ours: str, theirs: str, name: str) -> str:
    """Return the requirements of the consumer and of a shop as one file. Raises ShopError."""
    pins = {match[1] for match in map(_PIN.fullmatch, _lines(ours)) if match}
    for line in _lines(theirs):
        match = _PIN.fullmatch(line)
        if not match:
            raise ShopError(
                f"{name} has the line {line[:80]!r}; give each package as NAME==VERSION with its --hash=sha256:…, as "
                "`pip-compile --generate-hashes` writes them"
            )
        if re.sub("[-_.]+", "-", match[1]).lower() in pins:
            raise ShopError(f"{name} names {match[1]}, which Dispatch pins itself; remove that line")
    return f"{ours.rstrip()}\n{theirs.strip()}\n" if theirs.strip() else ours


def _lines(text: str) -> list[str]:
    joined = re.sub(r"[ \t]*\\\n[ \t]*", " ", text)
    return [line for raw in joined.splitlines() if (line := re.sub(r"(^|\s+)#.*", "", raw).strip())]


def _packed(shop: Path | None, theirs: Path | None, directory: Path) -> tuple[bytes, bytes]:
    """Return the artifact and the list of what it is made of; `directory` takes what is downloaded.

    Raises what can be wrong with what it is made of.
    """
    ours = (_PACKAGE / "requirements.txt").read_text(encoding="utf-8")
    pins = requirements(ours, theirs.read_text(encoding="utf-8"), str(theirs)) if theirs else ours
    (directory / "requirements.txt").write_text(pins, encoding="utf-8")
    pinned = {
        "wheels": wheels(directory / "requirements.txt", directory / "wheels"),
        "installer": wheels(_PACKAGE / "installer.txt", directory / "installer"),
    }
    tracing = wheels(_PACKAGE / "tracing.txt", directory / "tracing")
    more = shop_files(shop, pinned["wheels"] + tracing) if shop else {}
    files = {**contents(_PACKAGE, pinned), **{name: file.read_bytes() for name, file in more.items()}}
    files.update({f"tracing/{name}": content for name, content in unpacked(tracing).items()})
    made_of = {**pinned, "tracing": tracing}
    listed = sbom.document(__version__, commit(_PACKAGE), made_of, shop.resolve().name if shop else "")
    return build({**files, "requirements.txt": pins.encode(), sbom.NAME: listed}), listed


def main(argv: list[str]) -> int:
    """Write the artifact to the one path given."""
    parser = argparse.ArgumentParser(
        prog="python -m dispatch_app.artifact",
        description="Build the artifact, the zip that the roles install: the consumer, the pinned wheels of what it "
        "needs, which pip downloads, and pip's own. Prints its size and its SHA-256; the same sources give the same "
        "bytes.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the zip to write, such as dist/dispatch.zip")
    parser.add_argument("--with", dest="shop", type=Path, metavar="DIR", help="a package of the shop's, with its hook")
    parser.add_argument(
        "--requirements", type=Path, metavar="FILE", help="what the hook requires, pinned by version and hash"
    )
    args = parser.parse_args(argv)
    target: Path = args.file
    try:
        with tempfile.TemporaryDirectory() as directory:
            content, listed = _packed(args.shop, args.requirements, Path(directory))
    except subprocess.CalledProcessError as error:
        print(f"pip could not get the pinned wheels (exit code {error.returncode})", file=sys.stderr)
        return 1
    except (ShopError, OSError, UnicodeDecodeError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_file() or target.read_bytes() != content:
        target.with_name(f"{target.name}.sig").unlink(missing_ok=True)  # that of another artifact
    _write(target, content)
    _write(target.with_suffix(".cdx.json"), listed)
    print(f"{target} {len(content)} bytes sha256 {hashlib.sha256(content).hexdigest()}")
    return 0


def _write(target: Path, content: bytes) -> None:
    unfinished = target.with_name(f"{target.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(target)  # whoever reads the file meanwhile has the old one or the new one, whole


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
