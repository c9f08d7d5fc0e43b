"""Packages without hashes are fetched, and built where they have no wheel, by a user who has no rights on the host."""

from __future__ import annotations

import hashlib
import os
import pwd
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils import app_build, app_wheels

from tests.unit.roles.test_build import Releases

# `pip wheel` makes a wheel that says who made it, where, and what came of a try to write beside that place; `pip
# install` logs the wheels that it is given.
INTERPRETER = """#!/bin/sh
case "$3 $4" in
  "venv "*) for venv; do :; done; mkdir -p "$venv/bin" && cp "$0" "$venv/bin/python" ;;
  "pip wheel")
    [ -z "$SAID" ] || { echo "$SAID"; exit 1; }
    mkdir wheels
    written=no; touch ../mine && written=yes
    echo "$(id -u)|$(id -G)|$PWD|$HOME|$TMPDIR|$PIP_INDEX_URL|$written" > wheels/thing.whl ;;
  "pip install") echo "$*" > "$LOG"; cat wheels/* "$RELEASE/.gathered/wheels"/* >> "$LOG" ;;
esac 2> /dev/null
exit 0
"""
HASH = f"--hash=sha256:{'0' * 64}"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    """Releases in a directory that everybody can enter, as a host's home is."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        found = Releases(Path(directory), monkeypatch)
        found.interpreter.write_text(INTERPRETER)
        monkeypatch.setenv("RELEASE", str(found.directory / "one"))
        yield found


def build(releases: Releases, requirements: str) -> str:
    """Build the release `one` with no need of hashes; return what pip was told to install, and from which wheels."""
    with zipfile.ZipFile(releases.artifact, "w") as archive:
        archive.writestr("requirements.txt", requirements)
    sha256 = hashlib.sha256(releases.artifact.read_bytes()).hexdigest()
    release = releases.directory / "one"
    plan = app_build.Plan(
        releases.artifact, sha256, release, str(releases.interpreter), "https://index/", require_hashes=False
    )
    app_build.build(plan)
    return releases.log.read_text()


def test_wheels_are_got_and_built_by_a_user_without_rights(releases: Releases) -> None:
    installed = build(releases, "thing\n")
    nobody, release = pwd.getpwnam(app_wheels.BUILDER), releases.directory / "one"
    place = release / ".gathered"
    assert f"--only-binary :all: --no-index --find-links {place}/wheels" in installed
    told = f"{nobody.pw_uid}|{nobody.pw_gid}|{place}|{place}|{place}|https://index/|no\n"
    assert installed.endswith(told)
    assert not place.exists()
    assert releases.stands()


def test_a_build_that_fails_is_told_from_a_package_that_is_not_there(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    for said, unbuilt in {
        "ERROR: No matching distribution found for thing": False,
        "  ERROR: Failed building wheel for thing": True,
        "error: metadata-generation-failed": True,
    }.items():
        monkeypatch.setenv("SAID", said)
        with pytest.raises(app_build.BuildError, match=said.strip()) as failed:
            build(releases, "thing\n")
        assert failed.value.unbuilt == unbuilt
        assert releases.names() == []


def test_requirements_with_hashes_are_held_to_them(releases: Releases) -> None:
    assert "--require-hashes" in build(releases, f"thing==1.0 {HASH}\nother\n")


def test_where_nothing_is_required_there_is_nothing_to_get(releases: Releases) -> None:
    assert ".gathered" not in build(releases, "# nothing\n")
