"""A host's PostgreSQL: found where its packages put it, refused what it can't be, copied and promoted."""

from __future__ import annotations

import importlib
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import postgresql_host as module
from ansible.module_utils.postgresql_host import Cluster, Host, find_cluster, telling
from ansible.module_utils.server_files import RefusedError

replica = importlib.import_module("roles.postgresql.library.postgresql_replica")
promotion = importlib.import_module("roles.postgresql.library.postgresql_promotion")


class Commands:
    """Answers commands by the first word that fits, and remembers them with their secrets."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, str]] = {}
        self.asked: list[list[str]] = []
        self.environments: list[dict[str, str]] = []

    def __call__(self, argv: list[str], **more: Any) -> tuple[int, str, str]:
        self.asked.append(argv)
        self.environments.append(more.get("environ_update", {}))
        return next((answer for word, answer in self.answers.items() if word in " ".join(argv)), (0, "", ""))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DEBIAN", "RED_HAT", "SETUP", "LOGS"):
        monkeypatch.setattr(module, name, tmp_path / name)
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(module, "USER", pwd.getpwuid(os.getuid()).pw_name)
    return tmp_path


@pytest.fixture
def host(root: Path) -> Host:
    """A host of Debian's with a server that has just been installed."""
    etc, data = root / "DEBIAN" / "15" / "main", root / "data"
    (data / "base" / "5").mkdir(parents=True)
    (data / "PG_VERSION").touch()
    etc.mkdir(parents=True)
    (etc / "postgresql.conf").write_text(f"data_directory = '{data}'\t\t# use data in another directory\n")
    made = Host(Commands())
    made.booted = True
    return made


def commands(host: Host) -> Commands:
    assert isinstance(host._run, Commands)
    return host._run


def test_a_server_is_found_where_each_family_of_distributions_has_it(root: Path, host: Host) -> None:
    etc = root / "DEBIAN" / "15" / "main"
    debian = Cluster(etc, root / "data", Path("/usr/lib/postgresql/15/bin"), "postgresql@15-main")
    assert find_cluster() == host.cluster == debian
    (etc / "postgresql.conf").unlink()
    assert find_cluster() is None
    (root / "SETUP").touch()
    assert find_cluster() == Cluster(root / "RED_HAT", root / "RED_HAT", Path("/usr/bin"), "postgresql")


def test_several_clusters_are_refused_by_their_names(root: Path, host: Host) -> None:
    other = root / "DEBIAN" / "17" / "main"
    other.mkdir(parents=True)
    (other / "postgresql.conf").touch()
    with pytest.raises(RefusedError, match=r"several clusters of PostgreSQL \(15/main, 17/main\)"):
        Host(commands(host))


def test_a_fresh_server_can_become_either(host: Host) -> None:
    host.refuse_other_role("", rebuild=False)
    host.refuse_other_role("db-1", rebuild=False)


def test_a_replica_is_not_taken_for_the_primary(root: Path, host: Host) -> None:
    (root / "data" / "standby.signal").touch()
    host.refuse_other_role("db-1", rebuild=False)
    with pytest.raises(RefusedError, match="its PostgreSQL is a replica, which takes no writes"):
        host.refuse_other_role("", rebuild=False)


def test_a_server_with_databases_does_not_become_a_replica_unasked(root: Path, host: Host) -> None:
    (root / "data" / "base" / "16384").mkdir()
    host.refuse_other_role("", rebuild=False)
    with pytest.raises(RefusedError, match=r"has databases of its own[\s\S]*set postgresql_primary to it"):
        host.refuse_other_role("db-1", rebuild=False)
    host.refuse_other_role("db-1", rebuild=True)


def test_a_primary_that_was_taken_out_of_service_does_not_come_back(host: Host) -> None:
    commands(host).answers["is-enabled"] = (1, "masked\n", "")
    with pytest.raises(RefusedError, match="was taken out of service when another one took its place"):
        host.refuse_other_role("", rebuild=False)


def test_a_log_tells_why_a_server_did_not_start() -> None:
    log = (
        "2026-11-27 02:00:00 UTC [1] LOG:  starting PostgreSQL 15\n"
        "2026-11-27 02:00:00 UTC [1] FATAL:  could not map anonymous shared memory: Cannot allocate memory\n"
        "2026-11-27 02:00:00 UTC [1] HINT:  This error usually means\n"
    )
    assert telling(log).splitlines() == [line for line in log.splitlines() if "LOG:" not in line]
    assert telling("nothing\nof note") == "nothing\nof note"


def test_a_restart_is_judged_by_what_the_server_then_is(root: Path, host: Host) -> None:
    log = root / "LOGS" / "main.log"
    log.parent.mkdir()
    log.write_text("FATAL: of another time\n")
    told = commands(host).answers
    told["pg_is_in_recovery"] = (0, "f\n", "")
    assert host.restart(replica=False) == ""
    told["pg_stat_wal_receiver"] = (0, "0\n", "")
    assert host.restart(replica=True) == "it does not reach its primary"
    told["pg_stat_wal_receiver"] = (0, "1\n", "")
    assert host.restart(replica=True) == ""
    told["restart"] = (1, "", "")
    told["journalctl"] = (0, "FATAL: no room\n", "")
    assert host.restart(replica=False) == "FATAL: no room"
    told["journalctl"] = (0, "", "")
    assert host.restart(replica=False) == "nothing; see systemctl status postgresql@15-main"


COPY = {"primary": "db-1", "user": "replicator", "password": "a password", "ca": "PEM", "rebuild": False}


def test_the_primary_is_copied_once_and_the_password_is_on_no_command_line(root: Path, host: Host) -> None:
    (root / "data" / "own").touch()
    assert replica.settle(host, COPY, check_mode=True)
    assert (root / "data" / "own").exists()
    assert replica.settle(host, COPY, check_mode=False)
    assert [path.name for path in (root / "data").iterdir()] == ["standby.signal"]
    asked = commands(host)
    (copying,) = [number for number, words in enumerate(asked.asked) if "-D" in words]
    assert asked.environments[copying]["PGPASSWORD"] == "a password"
    assert "a password" not in str(asked.asked)
    assert "sslmode=verify-full" in str(asked.asked[copying])
    assert not replica.settle(host, COPY, check_mode=False)
    assert replica.settle(host, {**COPY, "rebuild": True}, check_mode=False)


def test_what_a_host_has_stays_where_the_primary_can_t_be_copied(root: Path, host: Host) -> None:
    (root / "data" / "own").touch()
    commands(host).answers["pg_basebackup"] = (1, "", "connection refused")
    with pytest.raises(RefusedError, match=r"can't be copied from db-1[\s\S]*connection refused"):
        replica.settle(host, COPY, check_mode=False)
    assert (root / "data" / "own").exists()
    assert not [path for path in root.iterdir() if path.name.endswith(".copy")]


def test_a_volume_in_the_place_of_the_data_is_refused(root: Path, host: Host) -> None:
    (root / "data").rename(root / "volume")
    (root / "data").symlink_to(root / "volume")
    with pytest.raises(RefusedError, match="is a link or a volume of its own"):
        replica.settle(host, COPY, check_mode=False)
    assert commands(host).asked == []


def test_a_primary_goes_out_of_service_only_where_the_replica_has_what_it_has(root: Path, host: Host) -> None:
    told = commands(host).answers
    told["pg_stat_replication"] = (0, "0\n", "")
    with pytest.raises(RefusedError, match="db-2 does not stream from this primary"):
        promotion.stand_down(host, "db-2", False)
    assert not [words for words in commands(host).asked if "mask" in words]
    told["pg_stat_replication"] = (0, "1\n", "")
    assert promotion.stand_down(host, "db-2", True)
    assert not [words for words in commands(host).asked if "mask" in words]
    host.__class__ = type("Stopping", (Host,), {"running": property(lambda self: "stop" not in str(self._run.asked))})
    assert promotion.stand_down(host, "db-2", False)
    assert commands(host).asked[-1] == ["systemctl", "mask", "postgresql@15-main"]
    (root / "data" / "standby.signal").touch()
    assert not promotion.stand_down(host, "db-2", False)


def test_a_replica_is_promoted_once(root: Path, host: Host) -> None:
    assert not promotion.promote(host, "db-2", False)
    (root / "data" / "standby.signal").touch()
    assert promotion.promote(host, "db-2", True)
    assert "pg_promote" not in str(commands(host).asked)
    told = commands(host).answers
    told["pg_promote"] = (0, "t\n", "")
    told["pg_is_in_recovery"] = (0, "f\n", "")
    assert promotion.promote(host, "db-2", False)
    told["pg_promote"] = (0, "f\n", "")
    with pytest.raises(RefusedError, match="does not become a primary"):
        promotion.promote(host, "db-2", False)


def test_a_replica_that_does_not_run_is_refused(host: Host) -> None:
    assert not promotion.check(host, "db-2", False)
    commands(host).answers["is-active"] = (3, "", "")
    with pytest.raises(RefusedError, match="PostgreSQL does not run on db-2"):
        promotion.check(host, "db-2", False)
