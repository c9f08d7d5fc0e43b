"""RabbitMQ's files on a host: placed and in force, or put back as they were, with the reason."""

from __future__ import annotations

import importlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.server_files import File, Previous, RefusedError, differing, found, place

from tests.unit.roles.hosts import files_of_own

configuration = importlib.import_module("roles.rabbitmq.library.rabbitmq_configuration")

WANTED: dict[str, Any] = {
    "plugins": ["rabbitmq_management"],
    "listeners": "",
    "tls": "listeners.ssl.default = 5671\n",
    "ca": "a CA",
    "certificate": "a certificate",
    "key": "a key",
    "cluster": "",
    "nodes_tls": "",
    "cookie": "",
    "upgraded_from": "",
    "addresses": {},
    "only_check": False,
}


class Host:
    """A host whose RabbitMQ boots unless one of its files holds `poison`."""

    booted = installed = True

    def __init__(self, etc: Path) -> None:
        self.etc, self.running, self.poison = etc, True, "poison"
        self.done: list[str] = []
        self.all_done: list[str] = []  # with what concerns the other nodes of its cluster
        self.unknown_plugins, self.taken = False, 0
        self.needed = False  # by the other nodes of its cluster
        self.arguments_taken = False

    def refuse_renamed(self) -> None: ...

    def refuse_unresolvable(self) -> None: ...

    def refuse_foreign_addresses(self, addresses: dict[str, str]) -> None: ...

    def refuse_other_arguments(self) -> None:
        if self.arguments_taken:
            raise RefusedError("set already")

    def refuse_unknown_plugins(self, _: list[str]) -> None:
        if self.unknown_plugins:
            raise RefusedError("an unknown plugin")

    def step_aside(self) -> None:
        if self.needed:
            raise RefusedError("the others can't do without it")
        self.all_done.append("step aside")

    def stop(self) -> None:
        self.all_done.append("stop")

    def come_back(self) -> None:
        self.all_done.append("come back")

    def restart(self, ports: list[int]) -> str:
        self.done.append("restart")
        self.all_done.append("restart")
        self.running = not any(self.poison in file.read_text() for file in self.etc.rglob("*.*") if file.is_file())
        if not self.running:
            return "BOOT FAILED: poison"
        return f"RabbitMQ does not listen on port {self.taken}" if self.taken in ports else ""

    def reread_certificates(self) -> None:
        self.done.append("reread")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    (tmp_path / "conf.d").mkdir()
    monkeypatch.setattr(configuration, "PLUGINS", tmp_path / "enabled_plugins")
    monkeypatch.setattr(configuration, "SETTINGS", tmp_path / "conf.d")
    monkeypatch.setattr(configuration, "CERTIFICATES", tmp_path / "tls")
    monkeypatch.setattr(configuration, "PREVIOUS", tmp_path / ".previous.json")
    monkeypatch.setattr(configuration, "COOKIE", tmp_path / "cookie")
    monkeypatch.setattr(configuration, "OPTIONS", tmp_path / "nodes-tls.config")
    monkeypatch.setattr(configuration, "ENVIRONMENT", tmp_path / "rabbitmq-env.conf")
    monkeypatch.setattr(configuration, "user_of", lambda _: os.getuid())
    files_of_own(configuration, monkeypatch)
    return Host(tmp_path)


def settle(host: Host, check_mode: bool = False, **changed: Any) -> dict[str, Any]:
    return dict(configuration.settle(host, {**WANTED, **changed}, check_mode))


def contents(etc: Path) -> dict[str, str]:
    return {str(file.relative_to(etc)): file.read_text() for file in sorted(etc.rglob("*")) if file.is_file()}


def test_what_differs_is_placed_and_rabbitmq_restarted_once(host: Host) -> None:
    result = settle(host)
    assert contents(host.etc) == {
        "conf.d/30-roboshop-tls.conf": WANTED["tls"],
        "enabled_plugins": "[rabbitmq_management].\n",
        "tls/broker.key": "a key",
        "tls/broker.pem": "a certificate",
        "tls/ca.pem": "a CA",
    }
    assert stat.S_IMODE((host.etc / "tls/broker.key").stat().st_mode) == 0o640
    assert host.done == ["restart"]
    assert (result["changed"], result["restarted"], result["running"]) == (True, True, True)
    again = settle(host)
    assert (again["changed"], again["changed_files"], host.done) == (False, [], ["restart"])


def test_a_preview_shows_what_differs_without_the_key_and_changes_nothing(host: Host) -> None:
    result = settle(host, check_mode=True)
    assert contents(host.etc) == {}
    assert host.done == []
    assert len(result["changed_files"]) == 5
    assert "a certificate" in json.dumps(result["diff"])
    assert "a key" not in json.dumps(result["diff"])


def test_a_renewed_certificate_is_read_without_a_restart(host: Host) -> None:
    settle(host)
    host.done.clear()
    result = settle(host, certificate="another certificate")
    assert host.done == ["reread"]
    assert (result["changed"], result["restarted"]) == (True, False)


def test_the_configuration_that_ran_comes_back_where_rabbitmq_does_not_boot(host: Host) -> None:
    settle(host)
    before = contents(host.etc)
    with pytest.raises(RefusedError, match=r"the previous one is back and RabbitMQ runs with it[\s\S]*BOOT FAILED"):
        settle(host, tls="poison", plugins=["another"])
    assert contents(host.etc) == before
    assert host.running
    assert host.done == ["restart"] * 3


def test_a_play_cut_short_leaves_what_the_next_one_puts_back(host: Host) -> None:
    settle(host)
    before = contents(host.etc)
    unproven = [File(host.etc / "conf.d/30-roboshop-tls.conf", b"poison", 0o640, os.getuid(), os.getgid())]
    Previous(configuration.PREVIOUS).keep(unproven)
    place(unproven[0])
    with pytest.raises(RefusedError, match="the previous one is back and RabbitMQ runs with it"):
        settle(host, tls="poison")
    assert contents(host.etc) == before


def test_a_host_where_neither_boots_is_told_so(host: Host) -> None:
    settle(host)
    (host.etc / "conf.d/99-by-hand.conf").write_text("poison")
    with pytest.raises(RefusedError, match="it does not start with that any more"):
        settle(host, plugins=["another"])
    host.running = False
    with pytest.raises(RefusedError, match="RabbitMQ does not start with the configuration it has had so far"):
        settle(host)


def test_a_broker_that_boots_without_its_tls_port_goes_back_to_what_ran(host: Host) -> None:
    settle(host, tls="")
    before = contents(host.etc)
    host.taken = 5671
    with pytest.raises(RefusedError, match=r"the previous one is back[\s\S]*does not listen on port 5671"):
        settle(host)
    assert contents(host.etc)["enabled_plugins"] == before["enabled_plugins"]
    assert "conf.d/30-roboshop-tls.conf" not in contents(host.etc)


def test_an_unknown_plugin_is_refused_before_anything_changes(host: Host) -> None:
    host.unknown_plugins = True
    with pytest.raises(RefusedError, match="an unknown plugin"):
        settle(host)
    assert contents(host.etc) == {}


def test_a_check_alone_changes_nothing_and_says_nothing_of_what_differs(host: Host) -> None:
    assert settle(host, only_check=True) == {"changed": False, "changed_files": [], "restarted": False, "running": True}
    assert contents(host.etc) == {}


def test_without_systemd_files_are_placed_and_nothing_is_started(host: Host) -> None:
    host.booted = host.running = False
    result = settle(host)
    assert "tls/broker.key" in contents(host.etc)
    assert (host.done, result["running"], result["changed"]) == ([], False, True)


def test_without_tls_the_file_that_sets_it_up_goes(host: Host) -> None:
    settle(host)
    settle(host, tls="")
    assert "conf.d/30-roboshop-tls.conf" not in contents(host.etc)


def test_a_file_that_others_may_read_differs(host: Host) -> None:
    settle(host)
    key = host.etc / "tls/broker.key"
    key.chmod(0o644)
    wanted = File(key, b"a key", 0o640, os.getuid(), os.getgid(), secret=True)
    assert differing([wanted]) == [wanted]
    assert found(wanted).shown == "(not shown)\n"


CLUSTER = """# ours
cluster_formation.classic_config.nodes.1 = rabbit@a
cluster_partition_handling = pause_minority
"""


def test_a_member_hands_over_before_it_is_restarted_and_waits_for_the_others_after(host: Host) -> None:
    settle(host, cluster=CLUSTER)
    assert host.all_done == ["step aside", "restart", "come back"]
    assert (host.etc / "conf.d/32-roboshop-cluster.conf").read_text() == CLUSTER


def test_a_member_that_the_others_can_t_do_without_is_left_as_it_is(host: Host) -> None:
    settle(host)
    before, host.needed = contents(host.etc), True
    with pytest.raises(RefusedError, match="can't do without it"):
        settle(host, cluster=CLUSTER)
    assert contents(host.etc) == before
    assert host.done == ["restart"]


def test_a_node_more_in_the_inventory_restarts_no_other(host: Host) -> None:
    settle(host, cluster=CLUSTER)
    host.done.clear()
    more = CLUSTER + "cluster_formation.classic_config.nodes.2 = rabbit@b\n"
    result = settle(host, cluster=more)
    assert (result["changed"], result["restarted"], host.done) == (True, False, [])
    assert (host.etc / "conf.d/32-roboshop-cluster.conf").read_text() == more
    settle(host, cluster=more.replace("pause_minority", "autoheal"))
    assert host.done == ["restart"]


def test_a_node_is_stopped_by_the_cookie_it_runs_with_and_nobody_else_can_read_the_new_one(host: Host) -> None:
    (host.etc / "cookie").write_text("OLD")
    result = settle(host, cookie="NEWCOOKIE")
    assert host.all_done == ["step aside", "stop", "restart", "come back"]
    assert (host.etc / "cookie").read_text() == "NEWCOOKIE"
    assert stat.S_IMODE((host.etc / "cookie").stat().st_mode) == 0o400
    assert "COOKIE" not in json.dumps(result["diff"])
    assert not settle(host, cookie="NEWCOOKIE")["changed"]
    host.running = False  # and so it is before it has ever started
    (host.etc / "cookie").unlink()
    host.all_done.clear()
    settle(host, cookie="NEWCOOKIE")
    assert host.all_done == ["restart", "come back"]


def test_the_cookie_that_it_ran_with_comes_back_where_rabbitmq_does_not_boot(host: Host) -> None:
    (host.etc / "cookie").write_text("OLD")
    with pytest.raises(RefusedError, match="the previous one is back"):
        settle(host, cookie="NEW", tls="poison")
    assert (host.etc / "cookie").read_text() == "OLD"


OPTIONS = "[{server, []}].\n"


def test_tls_between_nodes_is_turned_on_by_the_way_it_spoke_before_and_off_again(host: Host) -> None:
    settle(host, cluster=CLUSTER, tls="")
    host.all_done.clear()
    (host.etc / "rabbitmq-env.conf").write_text("# ours\nNODENAME=shop\n")
    result = settle(host, cluster=CLUSTER, tls="", nodes_tls=OPTIONS)
    assert host.all_done == ["step aside", "stop", "restart", "come back"]
    text = (host.etc / "rabbitmq-env.conf").read_text()
    assert text.startswith("# ours\nNODENAME=shop\n")
    assert "-proto_dist inet_tls" in text
    assert contents(host.etc)["nodes-tls.config"] == OPTIONS
    # Without TLS for clients the certificates are there all the same, and the key is not shown.
    assert contents(host.etc)["tls/broker.key"] == "a key"
    assert "a key" not in json.dumps(result["diff"])
    assert not settle(host, cluster=CLUSTER, tls="", nodes_tls=OPTIONS)["changed"]
    settle(host, cluster=CLUSTER, tls="")
    assert (host.etc / "rabbitmq-env.conf").read_text() == "# ours\nNODENAME=shop\n"
    assert "nodes-tls.config" not in contents(host.etc)


def test_an_environment_file_that_only_turned_on_tls_goes_and_an_empty_one_of_somebody_s_stays(host: Host) -> None:
    settle(host, nodes_tls=OPTIONS)
    settle(host)
    assert "rabbitmq-env.conf" not in contents(host.etc)
    (host.etc / "rabbitmq-env.conf").write_text("")
    assert not settle(host)["changed"]
    assert "rabbitmq-env.conf" in contents(host.etc)


def test_arguments_that_somebody_has_set_already_are_refused(host: Host) -> None:
    host.arguments_taken = True
    settle(host)
    before = contents(host.etc)
    with pytest.raises(RefusedError, match="set already"):
        settle(host, nodes_tls=OPTIONS)
    assert contents(host.etc) == before


def test_a_node_that_does_not_start_after_its_upgrade_is_told_so(host: Host) -> None:
    settle(host)
    host.running, host.poison = False, "a CA"
    with pytest.raises(
        RefusedError, match=r"BOOT FAILED[\s\S]*It was upgraded from 3\.10\.8-1, and RabbitMQ supports no way"
    ):
        settle(host, upgraded_from="3.10.8-1")
