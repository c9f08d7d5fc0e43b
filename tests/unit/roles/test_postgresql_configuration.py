"""The database's files on a host: placed and in force, restarted only where one is due, or put back as they were."""

from __future__ import annotations

import importlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.postgresql_host import Cluster
from ansible.module_utils.server_files import Previous, RefusedError

from tests.unit.roles.hosts import files_of_own

configuration = importlib.import_module("roles.postgresql.library.postgresql_configuration")

WANTED: dict[str, Any] = {
    "settings": "shared_buffers = '256MB'\n",
    "database": "dispatch",
    "user": "dispatch",
    "owner": "dispatch_owner",
    "clients": ["10.0.2.11"],
    "replication_user": "replicator",
    "replication_password": "a password",
    "nodes": [],
    "name": "db-1",
    "primary": "",
    "ca": "a CA",
    "certificate": "a certificate",
    "key": "a key",
    "only_check": False,
}
DROP_IN = "conf.d/50-roboshop.conf"


class Host:
    """A host whose PostgreSQL starts unless a file holds `poison`, and refuses settings that hold `nonsense`."""

    booted = True

    def __init__(self, etc: Path) -> None:
        self.cluster: Cluster | None = Cluster(etc, etc / "data", Path("/bin"), "postgresql")
        self.etc, self.running, self.pending = etc, True, ["shared_buffers"]
        self.done: list[str] = []

    def refuse_bad_settings(self, files: list[Any]) -> None:
        if any(b"nonsense" in (file.content or b"") for file in files):
            raise RefusedError("PostgreSQL does not take its new settings.")

    def reread(self) -> list[str]:
        self.done.append("reread")
        return self.pending

    def out_of_role(self, _: bool) -> str:
        return ""

    def restart(self, replica: bool) -> str:
        self.done.append("restart as a replica" if replica else "restart")
        texts = [file.read_text() for file in self.etc.rglob("*") if file.is_file()]
        self.running = not any("poison" in text for text in texts)
        return "" if self.running else "FATAL: poison"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("15\n")
    (tmp_path / "postgresql.conf").write_text("include_dir = 'conf.d'\t\t# as Debian has it\n")
    files_of_own(configuration, monkeypatch)
    return Host(tmp_path)


def settle(host: Host, check_mode: bool = False, **changed: Any) -> dict[str, Any]:
    return dict(configuration.settle(host, {**WANTED, **changed}, check_mode))


def contents(etc: Path) -> dict[str, str]:
    files = sorted(file for file in etc.rglob("*") if file.is_file() and "data" not in file.parts)
    return {str(file.relative_to(etc)): file.read_text() for file in files}


def test_what_differs_is_placed_and_the_server_restarted_once(host: Host) -> None:
    result = settle(host)
    placed = contents(host.etc)
    assert set(placed) == {
        "postgresql.conf", DROP_IN, "conf.d/51-roboshop-access.conf", "roboshop_hba.conf", "roboshop_ident.conf",
        "tls/ca.pem", "tls/server.pem", "tls/server.key",
    }  # fmt: skip
    assert placed[DROP_IN] == WANTED["settings"]
    assert f"hba_file = '{host.etc}/roboshop_hba.conf'\n" in placed["conf.d/51-roboshop-access.conf"]
    assert stat.S_IMODE((host.etc / "tls/server.key").stat().st_mode) == 0o640
    assert (result["changed"], result["restarted"], host.done) == (True, True, ["reread", "restart"])
    again = settle(host)
    assert (again["changed"], again["changed_files"], host.done) == (False, [], ["reread", "restart"])


def test_where_no_setting_asks_for_a_restart_the_server_only_reads_anew(host: Host) -> None:
    settle(host)
    host.done.clear()
    host.pending = []
    result = settle(host, certificate="another certificate", clients=["10.0.2.11", "10.0.2.12"])
    assert (result["changed"], result["restarted"], host.done) == (True, False, ["reread"])


def test_a_preview_shows_what_differs_without_a_secret_and_changes_nothing(host: Host) -> None:
    before = contents(host.etc)
    result = settle(host, check_mode=True, primary="10.0.4.11")
    assert (contents(host.etc), host.done) == (before, [])
    assert len(result["changed_files"]) == 8
    shown = json.dumps(result["diff"])
    assert "a certificate" in shown
    assert "a key" not in shown
    assert "a password" not in shown


def test_settings_that_the_server_does_not_take_are_refused_before_anything_changes(host: Host) -> None:
    before = contents(host.etc)
    for only_check in (True, False):
        with pytest.raises(RefusedError, match="does not take"):
            settle(host, settings="nonsense", only_check=only_check)
    assert (contents(host.etc), host.done) == (before, [])


def test_the_configuration_that_ran_comes_back_where_the_server_does_not_start(host: Host) -> None:
    settle(host)
    before = contents(host.etc)
    with pytest.raises(RefusedError, match=r"previous one is back and PostgreSQL runs with it[\s\S]*FATAL: poison"):
        settle(host, settings="poison", clients=[])
    assert contents(host.etc) == before
    assert host.running


def test_a_play_cut_short_leaves_what_the_next_one_puts_back(host: Host) -> None:
    settle(host)
    before = contents(host.etc)
    drop_in = host.etc / DROP_IN
    Previous(host.etc / ".roboshop-previous.json").keep([configuration.File(drop_in, b"", 0o640, 0, 0)])
    drop_in.write_text("poison")
    with pytest.raises(RefusedError, match="the previous one is back and PostgreSQL runs with it"):
        settle(host, settings="poison")
    assert contents(host.etc) == before


def test_a_server_that_does_not_run_is_started_and_one_that_can_t_be_says_why(host: Host) -> None:
    settle(host)
    host.done.clear()
    host.running = False
    assert settle(host)["restarted"]
    assert host.done == ["restart"]
    host.running = False
    (host.etc / "conf.d" / "99-by-hand.conf").write_text("poison")
    with pytest.raises(RefusedError, match="does not start with the configuration it has had so far"):
        settle(host)


def test_a_replica_reaches_its_primary_by_a_file_that_a_primary_has_not(host: Host) -> None:
    host.running = False
    settle(host, primary="10.0.4.11")
    assert host.done == ["restart as a replica"]
    assert "host='10.0.4.11'".replace("'", "''") in contents(host.etc)["conf.d/52-roboshop-replica.conf"]
    settle(host)
    assert "conf.d/52-roboshop-replica.conf" not in contents(host.etc)


def test_the_red_hat_family_s_main_file_learns_of_conf_d_once(host: Host) -> None:
    main = host.etc / "postgresql.conf"
    main.write_text("#include_dir = '...'\nport = 5432\n")
    settle(host)
    assert main.read_text() == (
        "#include_dir = '...'\nport = 5432\n\n# Added by the role postgresql.\ninclude_dir = 'conf.d'\n"
    )
    assert settle(host)["changed"] is False


def test_without_systemd_files_are_placed_and_nothing_is_started(host: Host) -> None:
    host.booted = host.running = False
    result = settle(host)
    assert "tls/server.key" in contents(host.etc)
    assert (host.done, result["running"], result["changed"]) == ([], False, True)


def test_a_host_without_a_server_has_nothing_to_check(host: Host) -> None:
    host.cluster, host.running = None, False
    assert settle(host, only_check=True)["running"] is False
    with pytest.raises(RefusedError, match="no cluster of PostgreSQL"):
        settle(host)
