"""The lines that turn on TLS between nodes come and go, and leave the rest of the file as it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible.module_utils import rabbitmq_host as host
from ansible.module_utils import rabbitmq_nodes_tls as nodes_tls


@pytest.mark.parametrize("text", ["", "NODENAME=shop\n", "# a\n\nNODENAME=shop\n"])
def test_the_lines_come_and_go(text: str) -> None:
    on = nodes_tls.with_tls(text)
    assert nodes_tls.with_tls(on) == on
    assert nodes_tls.without_tls(on) == text
    assert nodes_tls.without_tls(text) == text


def test_the_node_and_the_tools_get_the_same_arguments_once(tmp_path: Path) -> None:
    """RabbitMQ's scripts read the file with all variables exported, more than once; -proto_dist counts only once."""
    file = tmp_path / "rabbitmq-env.conf"
    file.write_text(nodes_tls.with_tls("NODENAME=shop\n"))
    script = f"set -a; . {file}; . {file}; echo $SERVER_ADDITIONAL_ERL_ARGS; echo $RABBITMQ_CTL_ERL_ARGS"
    node, tools = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout.splitlines()
    assert node == tools
    assert node.count("-proto_dist inet_tls") == 1
    assert f"-ssl_dist_optfile {nodes_tls.OPTIONS}" in node


def test_a_host_tells_how_its_node_speaks_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rabbitmq-env.conf"
    monkeypatch.setattr(host, "ENVIRONMENT", file)
    assert not host.Host(lambda _: (0, "", "")).node_tls
    file.write_text(nodes_tls.with_tls("NODENAME=shop\n"))
    found = host.Host(lambda _: (0, "", ""))
    assert (found.node_tls, found.node.partition("@")[0]) == (True, "shop")
    found.refuse_other_arguments()


@pytest.mark.parametrize(
    ("text", "unit"), [("CTL_ERL_ARGS='-kernel x'\n", ""), ("", "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-x")]
)
def test_arguments_of_somebody_else_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, unit: str
) -> None:
    file = tmp_path / "rabbitmq-env.conf"
    file.write_text(nodes_tls.with_tls(text))
    monkeypatch.setattr(host, "ENVIRONMENT", file)
    found = host.Host(lambda _: (0, "", ""))
    found._unit = unit
    with pytest.raises(host.RefusedError, match="ERL_ARGS of this host's RabbitMQ is set already"):
        found.refuse_other_arguments()
