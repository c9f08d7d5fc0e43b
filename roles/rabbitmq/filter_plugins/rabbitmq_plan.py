"""Which hosts make up a cluster, who comes first, and what keeps them from being one. Plain functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_FORGET = "playbooks/forget_broker.yml -e broker="


def rabbitmq_plan(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``{"faults", "seed", "node", "last", "members"}`` of a cluster, by what rabbitmq_node said of each host.

    `seed` is the host that is seen to first, whose cluster the others join, and `node` the name of its node; `last` is
    the host that is seen to last, and `members` are the names of all nodes.
    """
    seed = _seed(nodes)
    return {
        "faults": [*_faults(nodes, seed)],
        "seed": seed,
        "node": nodes[seed]["node"],
        "last": [seed, *(host for host in nodes if host != seed)][-1],
        "members": [told["node"] for told in nodes.values()],
    }


def _seed(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """The first host of the largest cluster there is, or else the one that has queues; one that runs where there is."""

    def weight(host: str) -> tuple[int, bool, bool]:
        told = nodes[host]
        return len(told["members"]), bool(told["queues"]), told["running"]

    return max(nodes, key=weight)


def _faults(nodes: Mapping[str, Mapping[str, Any]], seed: str) -> Iterator[str]:
    if len(nodes) % 2 == 0:
        yield (
            f"rabbitmq_cluster is true, and the cluster would have {len(nodes)} nodes ({', '.join(nodes)}): an even "
            "number survives no more nodes than the odd one below it, and cut in halves it stops. Have three, or five."
        )
    for name, count in Counter(told["node"] for told in nodes.values()).items():
        if count > 1:
            hosts = [host for host, told in nodes.items() if told["node"] == name]
            yield f"{' and '.join(hosts)} both call themselves {name}. Give each a host name of its own (hostnamectl)."
    for host, told in nodes.items():
        for name, why in told["unresolved"].items():
            yield (
                f"{host} can't reach the other nodes by the names they have: {name} ({why}). Give it to your DNS, or "
                f"to {host}: echo ADDRESS {name} >> /etc/hosts"
            )
    versions = {host: told["version"] for host, told in nodes.items() if told["version"]}
    if len({version.partition(".")[0] for version in versions.values()}) > 1:
        listed = ", ".join(f"{host} has {version}" for host, version in versions.items())
        yield f"Different major versions of RabbitMQ make no cluster: {listed}. Install one on all."
    yield from _strangers(nodes, seed)
    for host, told in nodes.items():
        if told["partitions"]:
            yield (
                f"The cluster is partitioned: by {host}, {'; '.join(told['partitions'])}. See that the nodes reach "
                "each other on ports 4369 and 25672, then restart those of the smaller part: systemctl restart "
                "rabbitmq-server"
            )
        if len(told["members"]) > 1 and not told["running"]:
            yield (
                f"{host} is a member of a cluster and does not run: systemctl start rabbitmq-server (where several are "
                f"stopped, on all of them at once). If it is gone, have the cluster forget it: {_FORGET}{told['node']}"
            )
        if told["cookie"] == "other" and len(told["members"]) > 1:
            yield (
                f"{host} is in a cluster already, with another Erlang cookie than rabbitmq_cookie_file has. Copy its "
                "/var/lib/rabbitmq/.erlang.cookie to that file, for you alone to read."
            )


def _strangers(nodes: Mapping[str, Mapping[str, Any]], seed: str) -> Iterator[str]:
    """What is in another cluster than the seed's, or in the seed's and not in the inventory."""
    members, wanted = nodes[seed]["members"], [told["node"] for told in nodes.values()]
    for host, told in nodes.items():
        if host == seed or told["node"] in members:
            continue
        if len(told["members"]) > 1:
            yield (
                f"{host} is in another cluster than {seed}: {', '.join(told['members'])}. Set rabbitmq_cluster_hosts "
                "to the hosts of one."
            )
        elif told["queues"]:
            yield (
                f"{host} has queues of its own, which would be gone once it joins {seed}: {', '.join(told['queues'])}. "
                "Move what waits there and delete them, or take the host out of the group."
            )
    gone = [node for node in members if node not in wanted]
    if gone:
        yield (
            f"{', '.join(gone)} is in the cluster of {seed}, but not in the inventory. Put its host there, or, once it "
            f"is gone, have the cluster forget it: {_FORGET}{gone[0]}"
        )


class FilterModule:
    """Hands the function to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rabbitmq_plan": rabbitmq_plan}
