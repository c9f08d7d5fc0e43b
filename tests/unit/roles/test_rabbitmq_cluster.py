"""A node and its cluster: what RabbitMQ prints is understood, and nobody joins or restarts who must not."""

from __future__ import annotations

import importlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import rabbitmq_cluster as cluster
from ansible.module_utils.server_files import RefusedError

forget = importlib.import_module("roles.rabbitmq.library.rabbitmq_forget")
membership = importlib.import_module("roles.rabbitmq.library.rabbitmq_membership")
nodes = importlib.import_module("roles.rabbitmq.library.rabbitmq_node")

ALL = ["rabbit@a", "rabbit@b", "rabbit@c"]


class Node:
    """Answers as RabbitMQ's commands do on a host, and notes those that change something."""

    def __init__(self, *members: str, down: tuple[str, ...] = (), queues: tuple[dict[str, Any], ...] = ()) -> None:
        self.members, self.gone, self.queues = list(members), down, list(queues)
        self.done: list[str] = []
        self.refused: dict[str, int] = {}  # exit codes by command
        self.partitions: dict[str, list[str]] = {}
        self.alarms: list[Any] = []
        self.seed = ""

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        words = [word for word in argv if not word.startswith("--") and word != "json"]
        command = words[1]
        if command == "cluster_status":
            up = [node for node in self.members if node not in self.gone]
            told = {"disk_nodes": self.members, "running_nodes": up}
            return 0, json.dumps({**told, "partitions": self.partitions, "alarms": self.alarms}), ""
        if command == "list_vhosts":
            return 0, json.dumps([{"name": "/"}]), ""
        if command == "list_queues":
            return 0, json.dumps(self.queues), ""
        self.done.append(" ".join(words))
        if code := self.refused.get(command):
            return code, "", f"{command} says no"
        if command == "join_cluster":
            self.members = sorted([*self.members, *ALL])
            self.members = sorted(set(self.members))
        return 0, "", ""


def settle(node: Node, name: str = "rabbit@b", check_mode: bool = False, **more: Any) -> list[str]:
    wanted = {"seed": "rabbit@a", "members": ALL, "whole": False, "rebalance": False, **more}
    return list(membership.settle(name, node, wanted, check_mode))


def test_an_empty_node_joins_the_seed() -> None:
    node = Node("rabbit@b")
    assert settle(node) == ["join rabbit@a"]
    assert [line.split()[1] for line in node.done] == ["stop_app", "reset", "join_cluster", "start_app"]
    assert settle(node) == []


def test_a_preview_joins_nothing() -> None:
    node = Node("rabbit@b")
    assert (settle(node, check_mode=True), node.done) == (["join rabbit@a"], [])


def test_a_node_with_queues_keeps_them_and_names_them() -> None:
    node = Node("rabbit@b", queues=({"name": "orders"},))
    with pytest.raises(RefusedError, match="rabbit@b has queues of its own: orders"):
        settle(node)
    assert node.done == []


def test_a_node_that_can_t_join_runs_again() -> None:
    node = Node("rabbit@b")
    node.refused = {"join_cluster": 69}
    with pytest.raises(RefusedError, match="join_cluster says no"):
        settle(node)
    assert node.done[-1] == "rabbitmqctl start_app"


def test_the_seed_joins_nobody() -> None:
    assert settle(Node("rabbit@a"), "rabbit@a") == []


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (Node(*ALL, down=("rabbit@c",)), "rabbit@c is down"),
        (Node("rabbit@a", "rabbit@b"), "not rabbit@a, rabbit@b, rabbit@c"),
        (Node(*ALL, "rabbit@d"), "the nodes rabbit@a, rabbit@b, rabbit@c, rabbit@d"),
    ],
)
def test_a_cluster_that_is_not_whole_is_told(node: Node, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        settle(node, whole=True)


def test_alarms_and_partitions_are_told() -> None:
    node = Node(*ALL)
    node.alarms = [{"node": "rabbit@a", "resource": "disk"}]
    with pytest.raises(RefusedError, match="disk"):
        settle(node, whole=True)
    node.partitions = {"rabbit@a": ["rabbit@b"]}
    with pytest.raises(RefusedError, match="rabbit@a can't see rabbit@b"):
        settle(node, whole=True)


def test_queues_that_are_older_than_the_cluster_get_replicas_and_leaders_are_spread() -> None:
    old = {"name": "orders.dead", "type": "quorum", "members": ["rabbit@a"]}
    classic = {"name": "orders", "type": "classic", "members": []}
    node = Node(*ALL, queues=(old, {**old, "name": "new", "members": ALL}, classic))
    steps = settle(node, whole=True, rebalance=True)
    assert steps == ["give orders.dead a replica on rabbit@b", "give orders.dead a replica on rabbit@c"]
    assert [line.split()[:3] for line in node.done] == [
        ["rabbitmq-queues", "grow", "rabbit@b"], ["rabbitmq-queues", "grow", "rabbit@c"],
        ["rabbitmq-queues", "rebalance", "quorum"],
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "have", "due"), [(5, 3, 0), (5, 1, 2), (3, 2, 1), (1, 1, 0)])
def test_a_queue_has_three_replicas_or_as_many_as_there_are_nodes(size: int, have: int, due: int) -> None:
    members = [f"rabbit@{number}" for number in range(size)]
    queue = {"name": "q", "type": "rabbit_quorum_queue", "members": members[:have]}
    assert len(cluster.replicas_due([queue], members)) == due


def test_a_node_that_is_gone_is_forgotten_by_either_name() -> None:
    for name in ("c", "rabbit@c"):
        node = Node(*ALL, down=("rabbit@c",))
        result = forget.settle(node, name, False, False)
        assert result == {"changed": True, "members": ["rabbit@a", "rabbit@b"]}
        assert node.done == ["rabbitmq-queues shrink rabbit@c", "rabbitmqctl forget_cluster_node rabbit@c"]
        assert forget.settle(Node("rabbit@a", "rabbit@b"), name, False, False)["changed"] is False


def test_nobody_is_forgotten_in_a_preview() -> None:
    node = Node(*ALL, down=("rabbit@c",))
    assert (forget.settle(node, "c", False, True)["changed"], node.done) == (True, [])


def test_a_node_that_runs_or_has_queues_is_not_forgotten_and_a_wrong_name_is_told() -> None:
    home = {"name": "orders", "type": "classic", "pid": "<rabbit@c.1700000000.500.0>"}
    elsewhere = {**home, "name": "other", "pid": "<rabbit@b.1700000000.500.0>"}
    node = Node(*ALL, down=("rabbit@c",), queues=(home, elsewhere, {**home, "name": "dead", "type": "quorum"}))
    with pytest.raises(RefusedError, match=r"^orders live on rabbit@c alone"):
        forget.settle(node, "c", False, False)
    with pytest.raises(RefusedError, match="rabbit@b runs"):
        forget.settle(node, "b", False, False)
    with pytest.raises(RefusedError, match=r"No member .* is called d; rabbit@c is down"):
        forget.settle(node, "d", False, False)
    assert node.done == []
    assert forget.settle(node, "c", True, False)["changed"]


def restart(node: Node) -> cluster.Member:
    found = cluster.Member.__new__(cluster.Member)
    found._run = node
    return found


def test_a_member_waits_for_the_others_and_hands_over() -> None:
    node = Node(*ALL)
    node.refused = {"drain": 69}  # drained already
    restart(node).step_aside()
    assert node.done == ["rabbitmq-upgrade await_online_quorum_plus_one 300", "rabbitmq-upgrade drain"]
    restart(node).come_back()
    assert node.done[-1] == "rabbitmqctl await_online_nodes 3 300"


def test_a_node_without_its_application_is_told_what_that_means() -> None:
    said = "Error:\nthis command requires the 'rabbit' app to be running on the target node. Start it with ..."
    told = r"itself[\s\S]*in vain[\s\S]*systemctl restart[\s\S]*rabbitmqctl start_app[\s\S]*this command requires"
    with pytest.raises(RefusedError, match=told):
        cluster.status(lambda _: (64, "", said))


def test_a_node_alone_hands_over_nothing() -> None:
    node = Node("rabbit@a")
    restart(node).step_aside()
    assert node.done == []


def test_a_member_that_is_needed_is_not_restarted() -> None:
    node = Node(*ALL, down=("rabbit@c",))
    with pytest.raises(RefusedError, match="broker=rabbit@c"):
        restart(node).step_aside()
    node = Node(*ALL)
    node.refused = {"await_online_quorum_plus_one": 75}
    with pytest.raises(RefusedError, match="await_online_quorum_plus_one says no"):
        restart(node).step_aside()
    assert "rabbitmq-upgrade drain" not in node.done


def test_a_stopped_node_s_cluster_is_read_from_what_it_wrote_down(tmp_path: Path) -> None:
    (tmp_path / "rabbit@b-1").mkdir()
    assert cluster.remembered(tmp_path, "rabbit@b-1") == []
    (tmp_path / "rabbit@b-1" / "cluster_nodes.config").write_text("{[rabbit@a,'rabbit@b-1'],[rabbit@a]}.\n")
    assert cluster.remembered(tmp_path, "rabbit@b-1") == ["rabbit@a", "rabbit@b-1"]
    assert cluster.remembered(None, "rabbit@b-1") == []


def test_names_that_lead_nowhere_or_back_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(name: str, *_: object) -> list[Any]:
        if name == "a":
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", ("127.0.1.1" if name == "b" else "10.0.0.3", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look)
    found = cluster.unresolved(["a", "b", "c"])
    assert found == {"a": "Name or service not known", "b": "is 127.0.1.1 here, which is this host itself"}


class Host:
    node = "rabbit@a"
    running, installed, node_tls = True, True, False
    data_directory: Path | None = None
    abandoned_queues = ("those in /var/lib/rabbitmq/mnesia/rabbit@a",)


def test_a_node_is_asked_or_where_it_is_stopped_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "COOKIE", tmp_path / "cookie")
    found = nodes.look(Host(), Node("rabbit@a", queues=({"name": "orders"},)), "A")
    assert (found["members"], found["queues"], found["cookie"]) == (["rabbit@a"], ["orders"], "none")
    (tmp_path / "cookie").write_text("A\n")
    found = nodes.look(Host(), Node(*ALL, queues=({"name": "orders"},)), "A")
    assert (found["members"], found["queues"], found["cookie"]) == (ALL, [], "same")
    cut_off = nodes.look(Host(), Node(*ALL, down=("rabbit@c",)), "A", True)
    assert (cut_off["down"], cut_off["tls"], cut_off["switches_tls"]) == (["rabbit@c"], True, True)
    stopped = Host()
    stopped.running = False
    found = nodes.look(stopped, Node(), "B")
    assert (found["members"], list(found["queues"]), found["cookie"]) == ([], [*Host.abandoned_queues], "other")
