"""Checks, before a release, that the tree, the version, the changelog, the artifact and the collection agree."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import dispatch_app
from dispatch_app.artifact import contents

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_RELEASED = re.compile(r"(\d+\.\d+\.\d+) - \d{4}-\d{2}-\d{2}")
_VERSION_FILE = "dispatch_app/__init__.py"


def tree_faults(checkout: Path, version: str, tag: str) -> Iterator[str]:
    """What keeps the checkout from being the release of this version; `tag` is what it is to be tagged with, or ""."""
    changed = _git(checkout, "status", "--porcelain")
    if changed:
        yield f"The tree has what no commit has: {', '.join(changed.splitlines())}. Commit it, or put it away."
    if tag and tag != f"v{version}":
        yield f"The tag is {tag}, and the version is {version}. Tag v{version}, or set __version__ in {_VERSION_FILE}."
    released = _git(checkout, "for-each-ref", "--format=%(*objectname)%(objectname)", f"refs/tags/v{version}")
    # An annotated tag has an object of its own, which follows the commit's here.
    if released and not released.startswith(_git(checkout, "rev-parse", "HEAD")):
        yield (
            f"v{version} is the tag of another commit, {released[:12]}. Raise __version__ in {_VERSION_FILE}, and "
            "begin its section in CHANGELOG.md."
        )


def changelog_faults(changelog: str, version: str) -> Iterator[str]:
    """What keeps the text of CHANGELOG.md from being that of this version."""
    _, *parts = _HEADING.split(changelog)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    waiting = re.findall(r"^- .*", sections.pop("Unreleased", ""), re.MULTILINE)
    if waiting:
        yield f"CHANGELOG.md has {len(waiting)} entries under Unreleased. Move them to the section of {version}."
    newest = next(iter(sections), "")
    found = _RELEASED.fullmatch(newest)
    if not found or found[1] != version:
        yield (
            f"The newest section of CHANGELOG.md is {newest or 'missing'!r}, and the version is {version}. Give that "
            f"section a heading such as ## {version} - 2026-11-27."
        )
    elif not sections[newest].strip():
        yield f"The section of {version} in CHANGELOG.md is empty. Say what is in this version."


def artifact_faults(artifact: Path, package: Path) -> Iterator[str]:
    """In what an artifact differs from the `package` dispatch_app of which it is to be made."""
    remedy = "Build it with `make artifact`."
    if not artifact.is_file():
        yield f"{artifact} does not exist. {remedy}"
        return
    wanted = contents(package, {})
    with zipfile.ZipFile(artifact) as archive:
        names = set(archive.namelist())
        differing = sorted(name for name, text in wanted.items() if name not in names or archive.read(name) != text)
    if differing:
        yield f"{artifact} differs from the tree in {', '.join(differing)}. {remedy}"
    own = ("dispatch_app/", "tracing/")
    others = sorted(name for name in names if name.endswith(".py") and not name.startswith(own))
    if others != ["__main__.py"]:
        yield f"{artifact} holds the code of a shop, and is no release. Build it without WITH."


def collection_faults(archive: Path, artifact: Path, version: str) -> Iterator[str]:
    """In what a collection differs from the version, and from the artifact, that it is to carry."""
    remedy = "Build it with `make collection`."
    if not archive.is_file():
        yield f"{archive} does not exist. {remedy}"
        return
    with tarfile.open(archive) as opened:
        manifest, carried = (_member(opened, name) for name in ("MANIFEST.json", "dist/dispatch.zip"))
    has = json.loads(manifest)["collection_info"]["version"]
    if has != version:
        yield f"{archive} has the version {has}, and not {version}. {remedy}"
    if artifact.is_file() and carried != artifact.read_bytes():
        yield f"{archive} carries another artifact than {artifact}. {remedy}"


def faults(checkout: Path, artifact: Path, archive: Path, tag: str = "") -> list[str]:
    """All that keeps a checkout from being released as it is: a sentence each, and what to do."""
    version = dispatch_app.__version__
    changelog = (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    return [
        *tree_faults(checkout, version, tag),
        *changelog_faults(changelog, version),
        *artifact_faults(artifact, checkout / "dispatch_app"),
        *collection_faults(archive, artifact, version),
    ]


def _git(checkout: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    return file.read() if file else b""
