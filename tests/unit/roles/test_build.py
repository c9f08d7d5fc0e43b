"""Building a release leaves a whole one, or what was."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils import app_build, app_releases

# Enough of an interpreter: it makes a venv of itself, and notes its arguments and the index it was told of; what it
# installs is named by FAIL, or nothing.
INTERPRETER = """#!/bin/sh
echo "$PIP_INDEX_URL|$PIP_CERT|$*" >> "$LOG"
case $3 in
  venv) for venv; do :; done; mkdir -p "$venv/bin" && cp "$0" "$venv/bin/python" ;;
  pip) echo "no such package"; exit ${FAIL:-0} ;;
esac
"""
# How the version before this one told whether a release still is what was built. Its releases are to stand.
DIGEST = r"""
listing=$(find "$1" -name __pycache__ -prune -o ! -name '.complete*' ! -name .activated \
  \( -type d -printf '%P/ %m %U:%G\n' -o -printf '%P %m %U:%G %s %l\n' \)) || exit
printf '%s\n' "$listing" | LC_ALL=C sort | sha256sum | cut -d ' ' -f 1
"""


class Releases:
    """The releases of a host, in a directory."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.directory = root / "app/releases"
        self.directory.mkdir(parents=True)
        self.locks = root / "locks"
        self.locks.mkdir()
        self.artifact = root / "artifact.zip"
        self.interpreter = root / "python"
        self.interpreter.write_text(INTERPRETER)
        self.interpreter.chmod(0o755)
        self.log = root / "log"
        self.patch = monkeypatch
        monkeypatch.setenv("LOG", str(self.log))
        monkeypatch.setattr(app_build, "LOCKS", self.locks)
        # Who is not root can't give its files away.
        monkeypatch.setattr(app_build, "ROOT", os.geteuid())

    def build(self, name: str = "one", sha256: str = "", fail: int = 0, **options: str) -> bool:
        with zipfile.ZipFile(self.artifact, "w") as archive:
            archive.writestr(zipfile.ZipInfo("requirements.txt"), "")  # with the same time each time, for the digest
        digest = hashlib.sha256(self.artifact.read_bytes()).hexdigest()
        self.patch.setenv("FAIL", str(fail))
        built: bool = app_build.build(
            app_build.Plan(self.artifact, sha256 or digest, self.directory / name, str(self.interpreter), **options)
        )
        return built

    def stands(self, name: str = "one") -> bool:
        return bool(app_releases.stands(self.directory / name))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    return Releases(tmp_path, monkeypatch)


def test_a_release_is_built_whole_and_once(releases: Releases) -> None:
    assert releases.build()
    assert releases.stands()
    assert not releases.artifact.exists()
    assert not list(releases.directory.rglob("*.zip"))
    before = (releases.directory / "one/.complete").stat()
    assert not releases.build()
    assert not releases.artifact.exists()
    assert (releases.directory / "one/.complete").stat() == before


def test_another_artifact_than_the_one_that_was_verified_is_refused(releases: Releases) -> None:
    with pytest.raises(app_build.BuildError, match=f"its SHA-256 is not {'0' * 64}; run the play again"):
        releases.build(sha256="0" * 64)
    assert releases.names() == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [("no zip", "File is not a zip file"), ("no text", "'utf-8' codec can't decode byte 0xff")],
)
def test_what_can_t_be_unpacked_is_told(releases: Releases, damage: str, said: str) -> None:
    with zipfile.ZipFile(releases.artifact, "w") as archive:
        archive.writestr("ä", "")
    content = releases.artifact.read_bytes()
    content = b"no zip" if damage == "no zip" else content.replace("ä".encode(), b"\xff\xff")
    releases.artifact.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    plan = app_build.Plan(releases.artifact, sha256, releases.directory / "one", str(releases.interpreter))
    with pytest.raises(app_build.BuildError, match=f"the artifact can't be unpacked: {said}"):
        app_build.build(plan)
    assert releases.names() == []
    assert not releases.artifact.exists()


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
    with pytest.raises(app_build.BuildError, match="no such package"):
        releases.build(fail=1)
    assert releases.names() == ["one"]
    assert (whole / "requirements.txt").read_text() == "damaged"
    assert (whole / ".activated").exists()


def test_a_release_that_is_built_anew_is_as_old_as_it_was(releases: Releases) -> None:
    releases.build()
    whole = releases.directory / "one"
    os.utime(whole / ".complete", (1, 1))
    (whole / "requirements.txt").write_text("damaged")
    assert releases.build()
    assert releases.stands()
    assert (whole / ".complete").stat().st_mtime == 1


def test_a_release_that_is_built_anew_has_been_live_as_before(releases: Releases) -> None:
    releases.build()
    whole = releases.directory / "one"
    (whole / ".activated").touch()
    os.utime(whole / ".activated", (1, 1))
    (whole / "requirements.txt").write_text("damaged")
    assert releases.build()
    assert (whole / ".activated").stat().st_mtime == 1


def test_parts_that_nobody_builds_any_more_are_removed(releases: Releases) -> None:
    for name in ("part", "held", "live", "whole", "whole.damaged", "anew", "anew.damaged"):
        (releases.directory / name).mkdir()
    for name in ("whole", "whole.damaged", "anew.damaged"):
        (releases.directory / name / ".complete").touch()
    (releases.root / "app/current").symlink_to(releases.directory / "live")
    with (releases.locks / "held.build").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert releases.build()
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


def test_of_two_builds_at_once_the_second_is_refused(releases: Releases) -> None:
    with (releases.locks / "one.build").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(app_build.BuildError, match=r"another play is building .*/one on this host right now"):
            releases.build()
    assert releases.artifact.exists()  # the other play may be building from it
    assert releases.names() == []


@pytest.mark.parametrize("target", ["there", "none"])
def test_a_lock_that_is_a_link_is_not_followed(releases: Releases, target: str) -> None:
    (releases.root / "there").write_text("of another")
    (releases.locks / "one.build").symlink_to(releases.root / target)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        releases.build()
    assert (releases.root / "there").read_text() == "of another"
    assert not (releases.root / "none").exists()
    assert releases.names() == []


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_releases_that_others_can_write_to_are_refused(releases: Releases, mode: int) -> None:
    releases.directory.chmod(mode)
    with pytest.raises(app_build.BuildError, match="can be written to by others than root"):
        releases.build()
    assert releases.names() == []
    releases.directory.chmod(0o755)
    assert releases.build()


def test_releases_that_are_another_user_s_are_refused(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(app_build.os, "geteuid", lambda: releases.directory.stat().st_uid + 1)
        with pytest.raises(app_build.BuildError, match=f"remove it [(]rm -r {releases.directory}[)]"):
            releases.build()
    assert releases.names() == []


@pytest.mark.parametrize("kind", ["link", "file"])
def test_releases_that_are_no_directory_are_refused(releases: Releases, kind: str) -> None:
    elsewhere = releases.root / "elsewhere"
    elsewhere.mkdir()
    releases.directory.rmdir()
    if kind == "link":
        releases.directory.symlink_to(elsewhere)
    else:
        releases.directory.touch()
    with pytest.raises(app_build.BuildError, match=f"{releases.directory} is no directory; move it away"):
        releases.build()
    assert list(elsewhere.iterdir()) == []


def test_releases_of_the_version_before_stand(tmp_path: Path) -> None:
    release = tmp_path / "release"
    for path in ("venv/bin", "package/__pycache__", "empty", ".hidden"):
        (release / path).mkdir(parents=True)
    for path in ("a", "a b", "a-b", "package/module.py", "package/__pycache__/module.pyc", "ä", "\N{SNOWMAN}", "B"):
        (release / path).write_text(path)
    (release / os.fsdecode(b"no text \xff")).touch()
    (release / "venv/bin/python").symlink_to("/usr/bin/python3")
    (release / "a").chmod(0o4755)
    (release / "empty").chmod(0o1777)
    for mark in (".complete", ".complete.new", ".activated"):
        (release / mark).touch()
    told = subprocess.run(["sh", "-c", DIGEST, "sh", str(release)], capture_output=True, text=True, check=True)
    assert app_releases.digest(release) == told.stdout.strip()
    (release / "package/module.py").write_text("longer than it was before")
    assert app_releases.digest(release) != told.stdout.strip()


def test_a_password_of_the_index_is_on_no_command_line(releases: Releases) -> None:
    index = "https://me:hunter2@index.invalid/simple"
    assert releases.build(index_url=index, ca_bundle="/etc/ca.pem")
    lines = [line.split("|") for line in releases.log.read_text().splitlines()]
    assert [arguments.split()[2] for _, _, arguments in lines] == ["venv", "pip", "compileall"]
    assert {(url, bundle) for url, bundle, _ in lines} == {(index, "/etc/ca.pem")}
    assert not [arguments for _, _, arguments in lines if "hunter2" in arguments]


def test_without_an_index_pip_takes_its_own(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "pip's own")
    monkeypatch.delenv("PIP_CERT", raising=False)
    releases.build()
    assert {line.rpartition("|")[0] for line in releases.log.read_text().splitlines()} == {"pip's own|"}


@pytest.mark.parametrize("left", [5 << 10, 10 << 20])
def test_a_full_disk_is_named(releases: Releases, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    monkeypatch.setattr(app_build.shutil, "disk_usage", lambda _: SimpleNamespace(free=left))
    with pytest.raises(app_build.BuildError) as refused:
        releases.build(fail=1)
    full = f"the disk is full: 5 KiB are left for {releases.directory / 'one'}; make room and run the play again\n"
    assert str(refused.value) == (full if left < 10 << 20 else "") + "no such package"


def test_a_request_is_answered_by_an_exit_code(releases: Releases, capsys: pytest.CaptureFixture[str]) -> None:
    releases.artifact.touch()
    plan = {"artifact": releases.artifact, "release": releases.directory / "one", "interpreter": releases.interpreter}
    request = {"plan": {**{name: str(path) for name, path in plan.items()}, "sha256": "0" * 64}, "source": "x.zip"}
    mask = os.umask(0o077)
    try:
        assert app_build.main(request) == 1
    finally:
        os.umask(mask)
    said = capsys.readouterr().err
    assert said.startswith("The release of x.zip could not be built, and nothing else has changed: ")
