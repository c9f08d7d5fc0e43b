"""What a host's RabbitMQ says is understood: its node's name, its plugins, why it failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils import rabbitmq_host as host

UNREACHABLE = """Error: unable to perform an operation on node 'rabbit@renamed'. Please see diagnostics information.

Most common reasons for this are:

 * Target node is unreachable (e.g. due to hostname resolution, TCP connection or firewall issues)

DIAGNOSTICS
===========

attempted to contact: [rabbit@renamed]

rabbit@renamed:
  * connected to epmd (port 4369) on renamed
  * {trouble}
"""

JOURNAL = """\
  ##  ##      RabbitMQ 3.10.8
2026-05-01 10:00:00.1+00:00 [info] <0.221.0> Starting RabbitMQ
2026-05-01 10:00:00.2+00:00 [error] <0.300.0> Failed to start Ranch listener on port 1883: address already in use

BOOT FAILED
===========
Error during startup: {error,{listen_error,eaddrinuse}}

2026-05-01 10:00:00.3+00:00 [error] <0.221.0>   supervisor: {local,rabbit_sup}
2026-05-01 10:00:00.3+00:00 [error] <0.221.0>   a report too much
"""


def test_the_unit_s_environment_wins_over_the_file_s() -> None:
    text = "# NODENAME=old@x\nNODENAME=shop\nexport RABBITMQ_USE_LONGNAME='true'\n"
    assert host.environment(text) == {"NODENAME": "shop", "USE_LONGNAME": "true"}
    assert host.environment(text, "RABBITMQ_NODENAME=other OTHER=1")["NODENAME"] == "other"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "rabbit@mq"),
        ({"NODENAME": "shop"}, "shop@mq"),
        ({"NODENAME": "shop@fixed"}, "shop@fixed"),
        ({"USE_LONGNAME": "true"}, "rabbit@mq.shop.internal"),
    ],
)
def test_the_node_is_named_as_rabbitmq_names_it(settings: dict[str, str], name: str) -> None:
    assert host.node_name(settings, "mq.shop.internal") == name


def test_a_node_of_long_names_is_named_by_the_host_s_domain_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.socket, "gethostname", lambda: "mq")
    monkeypatch.setattr(host.socket, "getfqdn", lambda: "mq.shop.internal")
    for settings, name in (({}, "rabbit@mq"), ({"USE_LONGNAME": "true"}, "rabbit@mq.shop.internal")):
        assert host.node_name(settings, host.own_name(settings)) == name


def test_a_host_that_can_t_resolve_its_own_name_is_told_what_to_do() -> None:
    host.refuse_unresolvable("rabbit@localhost")
    with pytest.raises(host.RefusedError, match=r"echo 127\.0\.1\.1 mq\.invalid >> /etc/hosts"):
        host.refuse_unresolvable("rabbit@mq.invalid")


def test_the_data_directory_is_the_configured_one() -> None:
    assert host.data_directory({}) == Path("/var/lib/rabbitmq/mnesia")
    assert host.data_directory({"MNESIA_BASE": "/data"}) == Path("/data")
    assert host.data_directory({"MNESIA_DIR": "/data/one"}) is None


def test_queues_of_a_node_of_another_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rabbit@old/msg_stores/vhosts/X/queues/Q").mkdir(parents=True)
    (tmp_path / "rabbit@empty").mkdir()
    host.refuse_renamed(tmp_path, "rabbit@old")
    with pytest.raises(host.RefusedError, match=r"holds the queues of rabbit@old.*hostnamectl set-hostname old"):
        host.refuse_renamed(tmp_path, "rabbit@new")


@pytest.mark.parametrize("file", ["rabbit_durable_queue.DCD", "LATEST.LOG", "coordination/rabbit@old/1.wal"])
@pytest.mark.parametrize("atom", [b"w\x05queue", b"d\0\x05queue"])
def test_a_queue_that_is_empty_is_known_by_its_record(tmp_path: Path, file: str, atom: bytes) -> None:
    kept = tmp_path / "rabbit@old" / file
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"h\x04w\x08resourcem\0\0\0\x01/w\x08exchangem\0\0\0\0l\0")
    host.refuse_renamed(tmp_path, "rabbit@new")
    with kept.open("ab") as more:
        more.write(b"w\x08amqqueueh\x04w\x08resourcem\0\0\0\x01/" + atom + b"m\0\0\0\x06orders")
    with pytest.raises(host.RefusedError, match="holds the queues of rabbit@old"):
        host.refuse_renamed(tmp_path, "rabbit@new")
    host.refuse_renamed(tmp_path, "rabbit@old")


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes 7, an Erlang node, and 8, which is none."""
    for number, command in ((7, "beam.smp"), (8, "sshd")):
        (tmp_path / f"proc/{number}").mkdir(parents=True)
        (tmp_path / f"proc/{number}/comm").write_text(f"{command}\n")
    monkeypatch.setattr(host, "PROC", tmp_path / "proc")
    return tmp_path


def test_a_node_that_runs_under_another_name_is_refused(processes: Path) -> None:
    (processes / "rabbit@old.pid").write_text("7\n")
    with pytest.raises(
        host.RefusedError, match="RabbitMQ runs as rabbit@old, but by this host's name it is rabbit@new"
    ):
        host.refuse_renamed(processes, "rabbit@new")
    host.refuse_renamed(processes, "rabbit@old")


@pytest.mark.parametrize("pid", ["9", "8", "not a number", ""])
def test_a_pid_file_that_a_dead_node_left_counts_for_nothing(processes: Path, pid: str) -> None:
    (processes / "rabbit@old.pid").write_text(pid)
    host.refuse_renamed(processes, "rabbit@new")


def test_an_unknown_plugin_is_named_with_the_likely_one() -> None:
    listed = "rabbitmq_management\nrabbitmq_prometheus\n"
    host.refuse_unknown_plugins(["rabbitmq_management"], listed)
    with pytest.raises(
        host.RefusedError, match=r"names rabbitmq_managment, which .*Did you mean rabbitmq_management\?"
    ):
        host.refuse_unknown_plugins(["rabbitmq_managment", "rabbitmq_prometheus"], listed)
    with pytest.raises(host.RefusedError, match="names nothing_like_it, which") as refused:
        host.refuse_unknown_plugins(["nothing_like_it"], listed)
    assert "Did you mean" not in str(refused.value)


def test_an_address_that_is_not_the_host_s_is_refused_by_its_variable() -> None:
    host.refuse_foreign_addresses({"rabbitmq_management_address": "127.0.0.1", "rabbitmq_prometheus_address": ""})
    with pytest.raises(host.RefusedError, match=r"rabbitmq_prometheus_address is 192\.0\.2\.1, which is no address of"):
        host.refuse_foreign_addresses({"rabbitmq_prometheus_address": "192.0.2.1"})


def test_of_a_journal_the_lines_are_kept_that_say_why() -> None:
    assert host.telling(JOURNAL).splitlines() == [
        "Failed to start Ranch listener on port 1883: address already in use",
        "Error during startup: {error,{listen_error,eaddrinuse}}",
    ]
    assert host.telling("2026-05-01 10:00:00.1+00:00 [info] <0.221.0> all is well\n") == ""


def test_a_node_that_can_t_be_reached_is_told_in_rabbitmq_s_words() -> None:
    said = host.unreachable(UNREACHABLE.format(trouble="epmd reports: node 'rabbit' not running at all"))
    assert "rabbitmqctl can't reach RabbitMQ's node on this host. See that it runs" in said
    assert "epmd reports: node 'rabbit' not running at all" in said
    assert "Most common reasons" not in said
    other = host.unreachable(UNREACHABLE.format(trouble="TCP connection succeeded but Erlang distribution failed"))
    assert "another Erlang cookie" in other
    assert host.unreachable("Error: user 'roboshop' does not exist") == ""
