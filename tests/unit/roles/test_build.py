"""The script that builds a release leaves a whole one, or what was."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "roles" / "app_release" / "files" / "build.sh"
# Enough of an interpreter: it unpacks and makes a venv of itself; what it installs is named by FAIL, or nothing.
INTERPRETER = """#!/bin/sh
case $2 in
  zipfile) exec python3 "$@" ;;
  venv) mkdir -p venv/bin && cp "$0" venv/bin/python ;;
  pip) exit ${FAIL:-0} ;;
esac
"""


class Releases:
    """The releases of a host, in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root / "app/releases"
        self.directory.mkdir(parents=True)
        self.locks = root / "locks"
        self.locks.mkdir()
        self.artifact = root / "artifact.zip"
        self.interpreter = root / "python"
        self.interpreter.write_text(INTERPRETER)
        self.interpreter.chmod(0o755)
        # Who is not root can't give its files away.
        self.script = SCRIPT.read_text().replace("/run/lock", str(self.locks)).replace("chown -R root:root .", ":")

    def build(self, name: str = "one", sha256: str = "", fail: int = 0) -> subprocess.CompletedProcess[str]:
        with zipfile.ZipFile(self.artifact, "w") as archive:
            archive.writestr("requirements.txt", "")
        digest = hashlib.sha256(self.artifact.read_bytes()).hexdigest()
        arguments = [self.artifact, self.directory / name, self.interpreter, sha256 or digest]
        return self.run(*map(str, arguments), fail=fail)

    def run(self, *arguments: str, fail: int = 0) -> subprocess.CompletedProcess[str]:
        command = ["sh", "-s", *arguments]
        environment = {**os.environ, "FAIL": str(fail)}
        return subprocess.run(command, input=self.script, capture_output=True, text=True, env=environment)

    def stands(self, name: str = "one") -> bool:
        return self.run(str(self.directory / name)).returncode == 0

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(tmp_path)


def test_a_release_is_built_whole_and_once(releases: Releases) -> None:
    assert releases.build().returncode == 0
    assert releases.stands()
    assert not releases.artifact.exists()
    assert not list(releases.directory.rglob("*.zip"))
    before = (releases.directory / "one/.complete").stat()
    assert releases.build().returncode == 0
    assert (releases.directory / "one/.complete").stat() == before


def test_another_artifact_than_the_one_that_was_verified_is_refused(releases: Releases) -> None:
    built = releases.build(sha256="0" * 64)
    assert built.returncode != 0
    assert f"its SHA-256 is not {'0' * 64}; run the play again" in built.stderr
    assert releases.names() == []


@pytest.mark.parametrize("killed", [False, True])
def test_a_damaged_release_stays_where_building_it_anew_fails(releases: Releases, killed: bool) -> None:
    releases.build()
    whole = releases.directory / "one"
    (whole / ".activated").touch()
    (whole / "requirements.txt").write_text("damaged")
    if killed:
        whole.rename(whole.with_name("one.damaged"))
        whole.mkdir()
        (whole / "part").touch()
    assert releases.build(fail=1).returncode != 0
    assert releases.names() == ["one"]
    assert (whole / "requirements.txt").read_text() == "damaged"
    assert (whole / ".activated").exists()


def test_a_release_that_is_built_anew_is_as_old_as_it_was(releases: Releases) -> None:
    releases.build()
    whole = releases.directory / "one"
    os.utime(whole / ".complete", (1, 1))
    (whole / "requirements.txt").write_text("damaged")
    assert releases.build().returncode == 0
    assert releases.stands()
    assert (whole / ".complete").stat().st_mtime == 1


def test_parts_that_nobody_builds_any_more_are_removed(releases: Releases) -> None:
    for name in ("part", "held", "live", "whole", "whole.damaged", "anew", "anew.damaged"):
        (releases.directory / name).mkdir()
    for name in ("whole", "whole.damaged", "anew.damaged"):
        (releases.directory / name / ".complete").touch()
    (releases.root / "app/current").symlink_to(releases.directory / "live")
    with (releases.locks / "held.build").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert releases.build().returncode == 0
    assert releases.names() == ["anew", "held", "live", "one", "whole"]
    assert (releases.directory / "anew/.complete").exists()


def test_only_root_may_hold_the_lock(releases: Releases) -> None:
    (releases.directory / "part").mkdir()
    releases.build()
    assert {path.name: path.stat().st_mode & 0o777 for path in releases.locks.iterdir()} == {
        "one.build": 0o600,
        "part.build": 0o600,
    }
    assert (releases.directory / "one").stat().st_mode & 0o777 == 0o755
