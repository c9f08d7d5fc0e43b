"""A broker gets back what it lacks, and nothing tells the hashes that its definitions hold."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import backup_definitions as module
from ansible.module_utils.backup_archive import DEFINITIONS, write
from ansible.module_utils.server_files import RefusedError

restore = importlib.import_module("roles.backup.library.backup_restore")

HASH = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
SAVED: dict[str, Any] = {
    "rabbit_version": "3.10.8",
    "users": [{"name": "roboshop", "password_hash": HASH, "tags": []}, {"name": "ops", "password_hash": HASH}],
    "vhosts": [{"name": "/"}, {"name": "other"}],
    "permissions": [
        {"user": "roboshop", "vhost": "/", "configure": "", "write": "", "read": ""},
        {"user": "ops", "vhost": "other", "configure": ".*", "write": ".*", "read": ".*"},
    ],
    "global_parameters": [{"name": "internal_cluster_id", "value": "old"}, {"name": "cluster_name", "value": "shop"}],
    "policies": [{"vhost": "/", "name": "limit", "pattern": "^orders$", "definition": {"max-length": 5}}],
    "queues": [{"name": "orders", "vhost": "/", "arguments": {}}, {"name": "audit", "vhost": "other"}],
    "bindings": [
        {"source": "robot-shop", "vhost": "/", "destination": key, "destination_type": "queue", "routing_key": key,
         "arguments": {}}
        for key in ("orders", "audit")
    ],
}  # fmt: skip
FRESH: dict[str, Any] = {
    "rabbit_version": "3.10.8",
    "users": [{"name": "roboshop", "password_hash": "another", "tags": ["monitoring"]}],
    "vhosts": [{"name": "/"}],
    "permissions": [{"user": "roboshop", "vhost": "/", "configure": "^orders$", "write": "", "read": ""}],
    "global_parameters": [{"name": "internal_cluster_id", "value": "new"}, {"name": "cluster_name", "value": "shop"}],
    "queues": [{"name": "orders", "vhost": "/", "arguments": {"x-queue-type": "quorum"}}],
    "bindings": [SAVED["bindings"][0]],
}


class Broker:
    """Answers as rabbitmqctl does, and takes what is imported."""

    def __init__(self, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.found, self.imported = found, 0
        (tmp_path / "rabbitmqctl").touch()
        monkeypatch.setattr(module, "CTL", tmp_path / "rabbitmqctl")
        (tmp_path / "definitions").write_text(json.dumps(SAVED))
        self.archive = tmp_path / "archive"
        facts = {"host": "one", "moment": 7, "name": "then"}
        write(self.archive, (os.geteuid(), os.getegid()), facts, {DEFINITIONS: tmp_path / "definitions"})

    def run(self, words: list[str], data: str = "", **_: Any) -> tuple[int, str, str]:
        if "import_definitions" in words:
            assert HASH not in " ".join(words)
            self.imported += 1
            for kind, rows in json.loads(data).items():
                self.found[kind] = [*self.found.get(kind, ()), *rows]
            return 0, "", ""
        return 0, json.dumps(self.found), ""


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Broker:
    return Broker(json.loads(json.dumps(FRESH)), monkeypatch, tmp_path)


def test_what_is_lacking_is_given_back_and_what_is_there_stays_as_the_inventory_rules_it(broker: Broker) -> None:
    expected = [
        "vhosts: other",
        "users: ops",
        "permissions: ops (other)",
        "policies: limit",
        "queues: audit (other)",
        "bindings: robot-shop to audit by 'audit'",
    ]
    assert restore.definitions(broker.run, broker.archive, True) == expected
    assert broker.imported == 0
    assert restore.definitions(broker.run, broker.archive, False) == expected
    assert restore.definitions(broker.run, broker.archive, False) == []
    assert broker.imported == 1
    assert broker.found["users"][0] == FRESH["users"][0]
    assert [row["value"] for row in broker.found["global_parameters"]] == ["new", "shop"]
    assert HASH not in str(expected)


@pytest.mark.parametrize(
    ("saved", "running", "refused"),
    [("3.10.8", "3.10.5", False), ("3.10.8", "4.0.5", False), ("4.0.5", "3.13.7", True), ("3.11.1", "3.10.8", True)],
)
def test_definitions_of_a_later_rabbitmq_are_refused(saved: str, running: str, refused: bool) -> None:
    if not refused:
        module.refuse_newer(saved, running)
        return
    with pytest.raises(RefusedError, match=f"The backup is of RabbitMQ {saved}, and this host has {running}"):
        module.refuse_newer(saved, running)


def test_the_version_is_told_by_either_name_of_it() -> None:
    assert module.version({"rabbitmq_version": "4.0.5", "rabbit_version": "4.0.5"}) == "4.0.5"
    assert module.version({"rabbit_version": "3.10.8"}) == "3.10.8"


def test_a_file_of_definitions_is_its_owner_s_alone(tmp_path: Path) -> None:
    module.save(SAVED, tmp_path / "definitions")
    assert (tmp_path / "definitions").stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "definitions").read_text()) == SAVED


def test_a_host_without_rabbitmq_and_a_node_that_fails_are_told_with_what_to_do(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match=r"import_definitions failed\. RabbitMQ says: no"):
        module.load(lambda *_, **__: (1, "", "no"), {"users": []})
    monkeypatch.setattr(module, "CTL", tmp_path / "none")
    with pytest.raises(RefusedError, match=r"Run playbooks/rabbitmq\.yml"):
        module.export(broker.run)
