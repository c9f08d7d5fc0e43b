"""What the playbooks say of a backup, and whose backup counts for a host of Dispatch's."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import backup_text as text
import pytest
from ansible.module_utils import backup_ledger

restore = importlib.import_module("roles.backup.library.backup_restore")
OWN: dict[str, Any] = {"moment": 10, "ledger": True, "shared": ""}
SHARED: dict[str, Any] = {"moment": 12, "ledger": False, "shared": "db-1/dispatch"}
DATABASE: dict[str, Any] = {"moment": 11, "ledger": True, "shared": ""}
REPLICA: dict[str, Any] = {"moment": 13, "ledger": False, "shared": ""}


def test_a_backup_counts_for_a_host_only_where_it_has_the_host_s_ledger() -> None:
    assert text.moment_of(OWN, [DATABASE]) == 10
    assert text.moment_of(SHARED, [REPLICA, DATABASE]) == 11
    assert text.moment_of(SHARED, []) == text.moment_of(SHARED, [REPLICA]) == 0
    assert text.moment_of({**OWN, "ledger": False}, [DATABASE]) == 0
    assert text.moment_of({}, []) == 0


def test_what_was_saved_and_given_back_is_said_with_the_backup_s_path() -> None:
    assert text.saved({"saved": ["the ledger of 3 orders"]}, "/b/x.tar.gz") == [
        "the ledger of 3 orders",
        "in /b/x.tar.gz",
    ]
    assert text.saved({"saved": ["the ledger"]}, "")[-1] == "(nothing was saved: this is a preview)"
    assert text.restored({"restored": [], "notes": []}, "/b/x", "one") == ["one has all that /b/x holds."]
    told = text.restored({"restored": ["users: ops"], "notes": ["a was live, and b is now"]}, "/b/x", "one")
    assert told[:2] == ["From /b/x:", "users: ops"]
    assert told[2].endswith("the inventory rules it: a was live, and b is now")


def test_what_is_live_and_was_not_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"release": "new", "settings": {"AMQP_HOST": "b", "AMQP_USER": "u"}}
    monkeypatch.setattr(backup_ledger, "facts", lambda: now)
    saved = {"release": "old", "settings": {"AMQP_HOST": "a", "AMQP_USER": "u", "AMQP_PORT": "5672"}}
    assert restore.notes({"dispatch": saved}) == [
        "old was live, and new is now",
        "AMQP_HOST was a, and is b",
        "AMQP_PORT was 5672, and is not set",
    ]
    assert restore.notes({}) == []
    now.update(release="", settings={})
    assert restore.notes({"dispatch": saved}) == ["old was live, and none is now"]


def test_no_backup_stands_where_git_would_take_it() -> None:
    root = Path(text.__file__).resolve().parents[3]
    assert "/backups/" in (root / ".gitignore").read_text().splitlines()
