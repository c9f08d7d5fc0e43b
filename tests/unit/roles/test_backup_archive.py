"""A backup in one file: written whole, found by its name, and refused where it is not what was saved."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from ansible.module_utils import backup_archive as archives
from ansible.module_utils.backup_keeping import find, store
from ansible.module_utils.server_files import RefusedError

MOMENT = 1_795_846_500
NAME = "20261128T061500Z"
HASH = "the hash of a password"
ME = os.geteuid(), os.getegid()


def made(path: Path, moment: int = MOMENT, ledger: bytes = b"orders " * 30_000) -> Path:
    """A backup of a host."""
    content = path.parent / "content"
    content.write_bytes(ledger)
    definitions = path.parent / "definitions"
    definitions.write_text(HASH)
    files = {archives.LEDGER: content, archives.DEFINITIONS: definitions}
    path.parent.mkdir(exist_ok=True)
    archives.write(path, ME, {"host": "one", "moment": moment, "name": archives.moment_name(moment)}, files)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return made(tmp_path / "incoming")


def test_what_was_saved_comes_out_again_for_its_owner_alone(archive: Path, tmp_path: Path) -> None:
    manifest = archives.verified(archive)
    assert (manifest["host"], manifest["moment"], manifest["name"]) == ("one", MOMENT, NAME)
    assert manifest["files"].keys() == {archives.LEDGER, archives.DEFINITIONS}
    assert archives.text(archive, archives.DEFINITIONS) == HASH
    target = tmp_path / "target"
    archives.extract(archive, archives.LEDGER, target, ME)
    assert target.read_bytes() == b"orders " * 30_000
    assert [path.stat().st_mode & 0o777 for path in (archive, target)] == [0o600, 0o600]
    assert archive.stat().st_size < target.stat().st_size / 10


def test_no_file_is_overwritten_and_no_link_followed(archive: Path, tmp_path: Path) -> None:
    secret, link = tmp_path / "secret", tmp_path / "link"
    secret.write_text("of root's")
    link.symlink_to(secret)
    with pytest.raises(FileExistsError):
        archives.extract(archive, archives.LEDGER, link, ME)
    with pytest.raises(OSError, match="symbolic links"):
        archives.write(tmp_path / "new", ME, {}, {"ledger.db": link})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RefusedError, match="is no file"):
        archives.write(tmp_path / "new", ME, {}, {"ledger.db": tmp_path / "pipe"})
    assert secret.read_text() == "of root's"


@pytest.mark.parametrize("where", ["middle", "last octets", "start"])
def test_a_damaged_backup_is_refused_by_its_name_and_nothing_of_it_is_left(
    archive: Path, tmp_path: Path, where: str
) -> None:
    content = bytearray(archive.read_bytes())
    if where == "last octets":
        del content[-4:]
    else:
        content[len(content) // 2 if where == "middle" else 1] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(archives.DamagedError, match=rf"The backup {archive} is damaged: "):
        archives.verified(archive)
    with pytest.raises(RefusedError):
        archives.extract(archive, archives.LEDGER, tmp_path / "target", ME)
    assert not (tmp_path / "target").exists()


def repacked(archive: Path, members: dict[str, bytes]) -> Path:
    """A sound archive of other content."""
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def test_content_that_is_not_what_was_saved_is_refused(archive: Path) -> None:
    manifest = json.dumps(archives.verified(archive)).encode()
    for members, why in (
        ({archives.MANIFEST: manifest, archives.LEDGER: b"other", archives.DEFINITIONS: HASH.encode()}, "ledger.db is"),
        ({archives.MANIFEST: manifest, archives.DEFINITIONS: HASH.encode()}, "ledger.db is not what was saved"),
        ({archives.LEDGER: b"", archives.MANIFEST: manifest}, "does not begin with manifest.json"),
        ({archives.MANIFEST: b"[]"}, "does not say what was saved"),
        ({archives.MANIFEST: b"{"}, "is damaged"),
        ({}, "does not begin with manifest.json"),
    ):  # fmt: skip
        with pytest.raises(RefusedError, match=why):
            archives.verified(repacked(archive, members))


def test_a_backup_of_a_later_version_of_the_format_is_refused(archive: Path) -> None:
    manifest = {**archives.verified(archive), "format": archives.FORMAT + 1}
    with pytest.raises(RefusedError, match="has the format 2, and this version of the playbooks reads format 1"):
        archives.verified(repacked(archive, {archives.MANIFEST: json.dumps(manifest).encode()}))


def test_a_missing_backup_is_refused_and_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="can't be read: No such file"):
        archives.verified(tmp_path / "none")


def test_only_as_many_are_kept_as_were_asked_for_and_the_new_one_is_among_them(tmp_path: Path) -> None:
    home = tmp_path / "one"
    home.mkdir()
    (home / "notes.txt").touch()
    for day in range(4):
        path, removed = store(made(home / ".incoming", MOMENT + day * 86400), 2)
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(removed) == (day > 1)
    assert [one.name for one in archives.kept(home)] == ["20261130T061500Z.tar.gz", "20261201T061500Z.tar.gz"]
    assert (home / "notes.txt").exists()
    assert not (home / ".incoming").exists()
    # By a clock that has gone back, the new one is older than those that are kept.
    path, _ = store(made(home / ".incoming", MOMENT), 2)
    assert path.exists()


def test_a_damaged_backup_that_arrives_neither_counts_nor_takes_another_s_place(tmp_path: Path) -> None:
    home = tmp_path / "one"
    home.mkdir()
    store(made(home / ".incoming"), 1)
    incoming = made(home / ".incoming", MOMENT + 1)
    incoming.write_bytes(incoming.read_bytes()[:-50])
    with pytest.raises(RefusedError, match="is damaged"):
        store(incoming, 1)
    assert [one.name for one in archives.kept(home)] == [f"{NAME}.tar.gz"]


def test_the_last_backup_is_found_or_the_one_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    first, _ = store(made(tmp_path / "one" / ".incoming"), 7)
    last, _ = store(made(tmp_path / "one" / ".incoming", MOMENT + 60), 7)
    assert find(tmp_path, "one") == last
    assert find(tmp_path, "one", NAME) == find(tmp_path, "one", f"{NAME}.tar.gz") == first
    with pytest.raises(RefusedError, match=f"no backup of one in .*one of {NAME}, 20261128T061600Z"):
        find(tmp_path, "one", "yesterday")
    with pytest.raises(RefusedError, match=r"no backup of two in .*; it has backups of one. .*backup_of=<host>"):
        find(tmp_path, "two")
    with pytest.raises(RefusedError, match="it has none at all"):
        find(tmp_path / "elsewhere", "one")
