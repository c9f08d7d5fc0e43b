"""A host's ledger is put back where it lacks orders, and never in the place of orders that the backup lacks."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import backup_ledger as ledgers
from ansible.module_utils.backup_archive import LEDGER, verified, write
from ansible.module_utils.backup_user import as_user
from ansible.module_utils.server_files import RefusedError

from dispatch_app import backupmark
from dispatch_app.ledgers import NAME
from dispatch_app.ledgers.port import Filter
from dispatch_app.ledgers.sqlite import SqliteLedger, backup, read

ENVIRONMENT = """# Written by the role app_service
AMQP_HOST="rabbit"
AMQP_ROUTING_KEY="orders"
AMQP_PASS="known"
DISPATCH_WEBHOOK_URL="https://shop.example/hook?token=known"
DISPATCH_WEBHOOK_SECRET="known"
DISPATCH_OTHER_URL="https://me:known@shop.example/"
SHOP_API="known"
"""


def record(path: Path, *ids: str) -> Path:
    with closing(SqliteLedger(path)) as ledger:
        ledger.record([(one, "ann", 1.0, 1, None, 0) for one in ids])
    return path


class Shop:
    """A host's directories, its service, and a backup of a ledger."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.commands: list[list[str]] = []
        self.active, self.starts = "inactive", True
        self.on_stop: Callable[[], object] = bool

    def run(self, words: list[str], **_: Any) -> tuple[int, str, str]:
        self.commands.append(words)
        if words[1] == "stop":
            self.on_stop()
        if words[1] == "start" and not self.starts:
            return 1, "", "Job for dispatch.service failed."
        return 0, f"{self.active}\n", ""

    def saved(self, *ids: str) -> Path:
        archive, copy = self.root / "archive", self.root / "copy"
        backup(record(self.root / "source", *ids), copy)
        write(archive, (os.geteuid(), os.getegid()), {"host": "one", "moment": 7, "name": "then"}, {LEDGER: copy})
        return archive

    def restore(self, archive: Path, overwrite: bool = False, check_mode: bool = False) -> list[str]:
        made = ledgers.Restoration(self.run, archive, verified(archive), overwrite, "one")
        done: list[str] = made.settle(check_mode)
        assert list(Path(ledgers.private_directory.__globals__["PLACE"]).iterdir()) == []
        return done

    def orders(self, path: Path | None = None) -> list[str]:
        return sorted(row["id"] for row in read(path or self.state / LEDGER, 100, Filter()))

    @property
    def kept(self) -> list[Path]:
        return sorted(self.state.glob("ledger.db.before-*"))

    @property
    def asked(self) -> list[str]:
        return [words[1] for words in self.commands]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    made = Shop(tmp_path)
    made.state.mkdir()
    (tmp_path / "place").mkdir()
    for name in ("STATE", "CONFIGURATION", "HOME", "COMMAND"):
        monkeypatch.setattr(ledgers, name, tmp_path / name.lower())
    monkeypatch.setitem(ledgers.private_directory.__globals__, "PLACE", tmp_path / "place")
    return made


def test_both_sides_call_the_files_the_same() -> None:
    assert (ledgers.LEDGER, ledgers.MARK) == (NAME, backupmark.NAME)


def test_a_host_without_a_ledger_gets_it_back_and_the_second_run_changes_nothing(shop: Shop) -> None:
    archive = shop.saved("a", "b")
    assert shop.restore(archive, check_mode=True) == ["put back the ledger with its 2 orders"]
    assert list(shop.state.iterdir()) == []
    assert shop.restore(archive) == ["put back the ledger with its 2 orders"]
    assert shop.orders() == ["a", "b"]
    assert (shop.state / LEDGER).stat().st_mode & 0o777 == 0o600
    assert shop.restore(archive) == []
    assert shop.kept == []
    assert record(shop.state / LEDGER, "c")
    assert shop.orders() == ["a", "b", "c"]


def test_a_ledger_that_an_earlier_release_has_made_is_compared_with_one_of_this(shop: Shop) -> None:
    archive = shop.saved("a", "b")
    with closing(sqlite3.connect(shop.state / LEDGER)) as db, db:
        db.execute("CREATE TABLE orders (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)")
        db.execute("INSERT INTO orders (id) VALUES ('a'), ('b'), ('later')")
    assert shop.restore(archive) == []
    with closing(sqlite3.connect(shop.state / LEDGER)) as db, db:
        db.execute("DELETE FROM orders WHERE id = 'b'")
    with pytest.raises(RefusedError, match="such as later, and lacks 1 of its 2"):
        shop.restore(archive)


def test_a_host_that_dispatch_has_never_been_on_gets_it_too(shop: Shop) -> None:
    shop.state.rmdir()
    assert shop.restore(shop.saved("a"))
    assert shop.orders() == ["a"]
    assert shop.state.stat().st_mode & 0o777 == 0o700


def test_a_ledger_that_has_all_of_the_backup_and_more_stays_as_it_is(shop: Shop) -> None:
    record(shop.state / LEDGER, "a", "b", "later")
    assert shop.restore(shop.saved("a", "b"), overwrite=True) == []
    assert shop.orders() == ["a", "b", "later"]
    assert shop.commands == []


@pytest.mark.parametrize("check_mode", [True, False])
def test_orders_that_the_backup_lacks_are_not_lost_unless_the_host_is_named(shop: Shop, check_mode: bool) -> None:
    record(shop.state / LEDGER, "later")
    archive = shop.saved("a", "b")
    with pytest.raises(RefusedError) as refused:
        shop.restore(archive, check_mode=check_mode)
    for word in ("has 1 orders", "the backup then lacks", "such as later", "lacks 2 of its 2", "backup_overwrite=one"):
        assert word in str(refused.value)
    assert shop.orders() == ["later"]
    assert "stop" not in shop.asked
    done = shop.restore(archive, overwrite=True)
    (kept,) = shop.kept
    assert done == ["put back the ledger with its 2 orders", f"kept the ledger that was there as {kept}"]
    assert (shop.orders(), shop.orders(kept)) == (["a", "b"], ["later"])
    assert shop.restore(archive, overwrite=True) == []


def test_a_service_that_runs_is_stopped_meanwhile_and_starts_with_the_ledger(shop: Shop) -> None:
    record(shop.state / LEDGER, "a")
    shop.active = "active"
    shop.restore(shop.saved("a", "b"))
    assert shop.asked == ["is-active", "stop", "start"]
    assert (shop.orders(), shop.kept) == (["a", "b"], [])


def test_orders_that_it_dispatches_before_it_has_stopped_are_not_lost(shop: Shop) -> None:
    shop.active = "activating"
    shop.on_stop = lambda: record(shop.state / LEDGER, "last")
    with pytest.raises(RefusedError, match="such as last"):
        shop.restore(shop.saved("a"))
    assert shop.orders() == ["last"]
    assert shop.asked[-1] == "start"


def test_a_service_that_does_not_start_has_its_ledger_back(shop: Shop) -> None:
    record(shop.state / LEDGER, "later")
    shop.active, shop.starts = "active", False
    with pytest.raises(RefusedError, match=r"did not start .* has back what it had before.*Job for dispatch"):
        shop.restore(shop.saved("a"), overwrite=True)
    assert (shop.orders(), shop.kept) == (["later"], [])


def test_a_service_that_had_no_ledger_has_none_again_where_it_does_not_start(shop: Shop) -> None:
    shop.active, shop.starts = "active", False
    with pytest.raises(RefusedError, match="did not start"):
        shop.restore(shop.saved("a"))
    assert list(shop.state.iterdir()) == []


def test_what_stands_in_the_log_of_a_killed_service_is_compared_and_kept(shop: Shop) -> None:
    other = shop.root / "other"
    other.mkdir()
    ledger = SqliteLedger(other / LEDGER)
    ledger.record([("logged", None, None, None, None, 0)])
    for path in other.iterdir():
        shutil.copy(path, shop.state)
    ledger.close()
    assert (shop.state / f"{LEDGER}-wal").stat().st_size > 0
    archive = shop.saved("a")
    with pytest.raises(RefusedError, match="such as logged"):
        shop.restore(archive)
    shop.restore(archive, overwrite=True)
    assert shop.orders() == ["a"]
    assert shop.orders(shop.kept[0]) == ["logged"]


def test_a_damaged_ledger_is_kept_and_replaced_only_where_the_host_is_named(shop: Shop) -> None:
    (shop.state / LEDGER).write_bytes(b"no database" * 1000)
    archive = shop.saved("a")
    with pytest.raises(RefusedError, match=r"can't be read \(file is not a database\).*backup_overwrite=one"):
        shop.restore(archive)
    assert shop.restore(archive, overwrite=True)[1].startswith("kept the ledger that was there as ")
    assert shop.orders() == ["a"]
    assert shop.kept[0].read_bytes() == b"no database" * 1000


def test_a_link_in_the_ledger_s_place_is_refused(shop: Shop) -> None:
    (shop.state / LEDGER).symlink_to(shop.root / "elsewhere")
    with pytest.raises(RefusedError, match="is a link or another kind of file"):
        shop.restore(shop.saved("a"))


def test_a_host_that_uses_the_fleet_s_ledger_gets_none_of_its_own(shop: Shop) -> None:
    (shop.root / "configuration").mkdir()
    (shop.root / "configuration" / "environment").write_text('DISPATCH_LEDGER="postgresql://dispatch@db-1,db-2/shop"\n')
    with pytest.raises(RefusedError, match=r"the fleet's at db-1,db-2/shop.*`dispatch ledger import`"):
        shop.restore(shop.saved("a"))
    assert list(shop.state.iterdir()) == []


def test_a_saved_file_that_is_no_ledger_is_refused(shop: Shop) -> None:
    archive, other = shop.root / "odd", shop.root / "odd-content"
    other.write_bytes(b"")
    write(archive, (os.geteuid(), os.getegid()), {"host": "one", "moment": 7, "name": "then"}, {LEDGER: other})
    with pytest.raises(RefusedError, match=r"The ledger in the backup then can't be used: .*another schema"):
        shop.restore(archive)


def test_settings_are_saved_without_what_may_be_a_secret(shop: Shop) -> None:
    (shop.root / "configuration").mkdir()
    (shop.root / "configuration" / "environment").write_text(ENVIRONMENT)
    (shop.root / "home" / "releases" / "abc-python3.11").mkdir(parents=True)
    (shop.root / "home" / "releases" / "abc-python3.11" / ".complete").write_text("abcdef\ndigest\n")
    (shop.root / "home" / "current").symlink_to(shop.root / "home" / "releases" / "abc-python3.11")
    found = ledgers.facts()
    assert (found["release"], found["artifact_sha256"]) == ("abc-python3.11", "abcdef")
    assert "known" not in str(found)
    assert found["settings"]["AMQP_ROUTING_KEY"] == "orders"
    assert found["settings"]["DISPATCH_WEBHOOK_URL"] == "https://shop.example/hook"
    assert found["settings"]["SHOP_API"] is None
    assert ledgers.shared() == ""


def test_the_command_of_the_host_copies_the_ledger(shop: Shop) -> None:
    with pytest.raises(RefusedError, match="which copies it, is not"):
        ledgers.save(shop.run, shop.root / "target")
    (shop.root / "command").touch()
    assert ledgers.save(lambda *_: (0, "12 orders copied to x\n", ""), shop.root / "target") == 12
    with pytest.raises(RefusedError, match="it says: failed: the ledger"):
        ledgers.save(lambda *_: (1, "", "failed: the ledger is damaged"), shop.root / "target")


def test_the_mark_says_when_the_last_backup_was_taken_and_never_goes_back(shop: Shop) -> None:
    assert backupmark.last_success(shop.state) == ledgers.marked() == 0.0
    assert ledgers.mark(1000, check_mode=True)
    assert ledgers.marked() == 0.0
    assert ledgers.mark(1000, check_mode=False)
    assert backupmark.last_success(shop.state) == ledgers.marked() == 1000.0
    assert not ledgers.mark(1000, check_mode=False)
    assert not ledgers.mark(999, check_mode=False)
    (shop.state / ledgers.MARK).write_text("soon")
    assert backupmark.last_success(shop.state) == ledgers.marked() == 0.0
    shop.state.joinpath(ledgers.MARK).unlink()
    shop.state.rmdir()
    assert not ledgers.mark(1000, check_mode=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_work_is_done_as_the_user_and_its_errors_are_told() -> None:
    assert as_user((65534, 65534), lambda: [os.getuid(), os.getgid(), os.getgroups()]) == [65534, 65534, []]
    with pytest.raises(RefusedError, match="no such thing"):
        as_user((65534, 65534), lambda: (_ for _ in ()).throw(ValueError("no such thing")))
    with pytest.raises(RefusedError, match="ended from outside"):
        as_user((65534, 65534), lambda: os._exit(3))
