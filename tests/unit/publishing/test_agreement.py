"""What `make release` refuses."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

import dispatch_app
from dispatch_app.artifact import build, contents
from tests.lab.ansible import ROOT
from tests.publishing.agreement import artifact_faults, changelog_faults, collection_faults, tree_faults

PACKAGE = ROOT / "dispatch_app"
RELEASED = "# Changelog\n\n## Unreleased\n\n## 1.2.0 - 2026-11-27\n\n### Added\n\n- It.\n\n## 1.1.0 - 2026-01-01\n"


def git(checkout: Path, *words: str) -> None:
    own = ("user.name=test", "user.email=test@example.com", "commit.gpgsign=false", "tag.gpgsign=false")
    words = (*(word for setting in own for word in ("-c", setting)), *words)
    subprocess.run(["git", *words], cwd=checkout, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path, "1")
    return tmp_path


def commit(checkout: Path, text: str) -> None:
    (checkout / "file").write_text(text)
    git(checkout, "add", "file")
    git(checkout, "commit", "--quiet", "--message", text)


def test_a_clean_tree_can_be_released(checkout: Path) -> None:
    assert list(tree_faults(checkout, "1.2.0", "v1.2.0")) == []


def test_a_tree_with_changes_is_refused(checkout: Path) -> None:
    (checkout / "file").write_text("2")
    (checkout / "new").write_text("")
    (said,) = tree_faults(checkout, "1.2.0", "")
    assert "M file, ?? new" in said


def test_a_tag_that_is_not_the_version_s_is_refused(checkout: Path) -> None:
    (said,) = tree_faults(checkout, "1.2.0", "v1.3.0")
    assert "The tag is v1.3.0, and the version is 1.2.0" in said


@pytest.mark.parametrize("kind", [(), ("--annotate", "--message", "x")])
def test_a_version_is_released_once(checkout: Path, kind: tuple[str, ...]) -> None:
    git(checkout, "tag", *kind, "v1.2.0")
    assert list(tree_faults(checkout, "1.2.0", "v1.2.0")) == []
    commit(checkout, "2")
    (said,) = tree_faults(checkout, "1.2.0", "")
    assert "v1.2.0 is the tag of another commit" in said
    assert "Raise __version__" in said


def test_the_changelog_s_newest_section_is_the_version_s() -> None:
    assert list(changelog_faults(RELEASED, "1.2.0")) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("## Unreleased\n", "## Unreleased\n\n- More.\n", "has 1 entries under Unreleased"),
        ("1.2.0", "1.3.0", "is '1.3.0 - 2026-11-27', and the version is 1.2.0"),
        (" - 2026-11-27", "", "is '1.2.0', and the version is 1.2.0"),
        ("### Added\n\n- It.\n", "", "is empty"),
    ],
)
def test_a_changelog_of_another_state_is_refused(old: str, new: str, said: str) -> None:
    (fault,) = changelog_faults(RELEASED.replace(old, new, 1), "1.2.0")
    assert said in fault


def test_this_changelog_and_this_version_agree() -> None:
    assert list(changelog_faults((ROOT / "CHANGELOG.md").read_text(), dispatch_app.__version__)) == []


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact made of this tree, but for the wheels."""
    file = tmp_path / "dispatch.zip"
    file.write_bytes(build(contents(PACKAGE, {})))
    return file


def test_an_artifact_of_the_tree_is_accepted(artifact: Path) -> None:
    assert list(artifact_faults(artifact, PACKAGE)) == []


def test_an_artifact_of_another_tree_is_refused(artifact: Path) -> None:
    artifact.write_bytes(build({**contents(PACKAGE, {}), "dispatch_app/orders.py": b""}))
    (said,) = artifact_faults(artifact, PACKAGE)
    assert "differs from the tree in dispatch_app/orders.py" in said


def test_what_make_artifact_builds_is_of_no_shop() -> None:
    assert [said for said in artifact_faults(ROOT / "dist" / "dispatch.zip", PACKAGE) if "WITH" in said] == []


def test_an_artifact_with_a_shop_s_hook_is_refused(artifact: Path) -> None:
    artifact.write_bytes(build({**contents(PACKAGE, {}), "shop/hook.py": b""}))
    (said,) = artifact_faults(artifact, PACKAGE)
    assert "Build it without WITH" in said


def archive(file: Path, version: str, artifact: bytes) -> Path:
    manifest = json.dumps({"collection_info": {"version": version}}).encode()
    with gzip.open(file, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as opened:
        for name, content in {"MANIFEST.json": manifest, "dist/dispatch.zip": artifact}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return file


@pytest.mark.parametrize(
    ("version", "artifact", "said"),
    [
        ("1.2.0", b"artifact", []),
        ("1.1.0", b"artifact", ["has the version 1.1.0, and not 1.2.0"]),
        ("1.2.0", b"other", ["carries another artifact"]),
    ],
)
def test_a_collection_is_of_the_version_and_carries_the_artifact(
    tmp_path: Path, version: str, artifact: bytes, said: list[str]
) -> None:
    (tmp_path / "dispatch.zip").write_bytes(b"artifact")
    made = archive(tmp_path / "collection.tar.gz", version, artifact)
    found = list(collection_faults(made, tmp_path / "dispatch.zip", "1.2.0"))
    assert [part in fault for part, fault in zip(said, found, strict=True)] == [True] * len(said)


def test_what_was_not_built_is_named(tmp_path: Path) -> None:
    (said,) = collection_faults(tmp_path / "none.tar.gz", tmp_path / "dispatch.zip", "1.2.0")
    assert "make collection" in said
    (said,) = artifact_faults(tmp_path / "dispatch.zip", PACKAGE)
    assert "make artifact" in said
