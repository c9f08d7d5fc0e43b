"""The marks of the releases say which ones stand, which one is live, and which one was before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils import app_kind, app_releases

SHA256 = "0d69affe422b7351fa18c44472a02542ad1421302eade9e9602a9975c5869840"
Marks = list[tuple[str, int, int | None]]  # of each release its name, and when it was built and made live


def home(root: Path, marks: Marks, live: str = "") -> Path:
    """A directory with these releases."""
    for name, built, activated in marks:
        release = root / "releases" / name
        release.mkdir(parents=True)
        for mark, moment in ((".complete", built), (".activated", activated)):
            if moment is not None:
                (release / mark).touch()
                os.utime(release / mark, (moment, moment))
    if live:
        (root / "current").symlink_to(root / "releases" / live)
    return root


@pytest.mark.parametrize(
    ("live", "marks", "before"),
    [
        ("b", [("a", 1, 2), ("b", 3, 4)], "a"),
        ("a", [("a", 1, 5), ("b", 3, 4)], ""),  # rolled back already: b would be forward
        ("c", [("a", 1, 5), ("b", 3, 4), ("c", 6, 7)], "a"),
        ("b", [("a", 1, None), ("b", 3, 4)], ""),
        ("b", [("a.damaged", 1, 2), ("b", 3, 4)], ""),
        ("", [], ""),
    ],
)
def test_a_rollback_goes_to_the_release_before_and_never_forward(
    tmp_path: Path, live: str, marks: Marks, before: str
) -> None:
    assert app_releases.previous(app_releases.complete(home(tmp_path, marks)), live) == before


def test_the_release_that_was_live_last_comes_first(tmp_path: Path) -> None:
    found = app_releases.complete(home(tmp_path, [("a", 1, 5), ("b", 2, None), ("c", 3, 9), ("d", 4, 7)]))
    assert [(one.id, one.built, one.activated) for one in app_releases.been_live(found)] == [
        ("c", 3, 9),
        ("d", 4, 7),
        ("a", 1, 5),
    ]


def test_a_part_of_a_release_is_none(tmp_path: Path) -> None:
    (home(tmp_path, [("whole", 1, None)]) / "releases/part").mkdir()
    assert [one.id for one in app_releases.complete(tmp_path)] == ["whole"]


@pytest.mark.parametrize(
    ("keep", "left"),
    [(1, ["live"]), (2, ["live", "third"]), (3, ["live", "second", "third"]), (0, ["live"])],
)
def test_those_that_were_live_last_are_kept(tmp_path: Path, keep: int, left: list[str]) -> None:
    marks: Marks = [("first", 1, 1), ("second", 2, 2), ("third", 3, 4), ("live", 4, 3), ("never", 5, None)]
    directory = home(tmp_path, marks, "live") / "releases"
    (directory / "part").mkdir()  # somebody may be building it
    app_releases.prune(tmp_path, keep)
    assert sorted(path.name for path in directory.iterdir()) == sorted([*left, "part"])


def test_what_is_no_link_leads_nowhere(tmp_path: Path) -> None:
    assert app_releases.live(tmp_path) is None
    (tmp_path / "current").mkdir()
    assert app_releases.live(tmp_path) is None
    (tmp_path / "current").rmdir()
    (tmp_path / "current").symlink_to("/app/releases/gone")
    assert app_releases.live(tmp_path) == Path("/app/releases/gone")


@pytest.mark.parametrize("was_live", [False, True])
def test_a_release_is_live_since_another_one_was(tmp_path: Path, was_live: bool) -> None:
    release = home(tmp_path, [("a", 1, 1)]) / "releases/a"
    app_releases.mark_live(release, release if was_live else tmp_path / "releases/b")
    assert ((release / ".activated").stat().st_mtime == 1) is was_live


def test_a_live_release_without_a_mark_is_given_one(tmp_path: Path) -> None:
    release = home(tmp_path, [("a", 1, None)]) / "releases/a"
    app_releases.mark_live(release, release)
    assert (release / ".activated").exists()


def test_a_release_stands_while_its_content_is_what_its_mark_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("as built")
    assert not app_releases.stands(tmp_path)
    marker = tmp_path / ".complete"
    marker.write_text(f"{SHA256}\n{app_releases.digest(tmp_path)}\n")
    assert app_releases.stands(tmp_path)
    assert app_releases.stands(tmp_path, SHA256)
    assert not app_releases.stands(tmp_path, "0" * 64)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / ".activated").touch()
    assert app_releases.stands(tmp_path, SHA256)
    with monkeypatch.context() as patch:
        patch.setattr(app_releases.os, "geteuid", lambda: marker.stat().st_uid + 1)
        assert not app_releases.stands(tmp_path)
    file.chmod(0o600)
    assert not app_releases.stands(tmp_path)
    file.chmod(0o644)
    assert app_releases.stands(tmp_path)
    file.unlink()
    assert not app_releases.stands(tmp_path)


@pytest.mark.parametrize("said", [b"", b"one line\n", b"\xff\n\xff\n"])
def test_a_mark_that_says_nothing_vouches_for_nothing(tmp_path: Path, said: bytes) -> None:
    (tmp_path / ".complete").write_bytes(said)
    assert not app_releases.stands(tmp_path)


@pytest.mark.parametrize(
    ("kind", "runtime", "name"),
    [
        ("python", "/usr/bin/python3.11", "python3.11"),
        ("python", "/opt/go/bin/pypy3", "pypy3"),
        ("python", "/usr/bin/python3", "python3"),
        ("go", "1.19", "go1.19"),
        ("binary", "", "binary"),
    ],
)
def test_a_release_is_one_of_an_artifact_for_a_runtime(kind: str, runtime: str, name: str) -> None:
    directory = app_releases.directory(Path("/app"), SHA256, kind, runtime)
    assert directory == Path(f"/app/releases/0d69affe422b-{name}")
    assert app_kind.kind_of(directory.name) == kind
