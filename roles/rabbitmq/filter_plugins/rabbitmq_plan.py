"""Which hosts make up a cluster, who comes first, and what keeps them from being one. Plain functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_FORGET = "playbooks/forget_broker.yml -e broker="
_RESTART = "playbooks/restart_brokers.yml"

Told = Mapping[str, Mapping[str, Any]]


def rabbitmq_plan(nodes: Told, packages: Told, restart: bool = False) -> dict[str, Any]:
    """Return ``{"faults", "seed", "node", "last", "members", "switches_tls"}`` of a cluster.

    `nodes` and `packages` are what rabbitmq_node and rabbitmq_packages said of each host. `seed` is the host that is
    seen to first, whose cluster the others join, and `node` the name of its node; `last` is the host that is seen to
    last, and `members` are the names of all nodes. `switches_tls` tells that they are to speak to each other in another
    way, for which all have to be stopped together: with `restart` they are.
    """
    seed = _seed(nodes)
    return {
        "faults": [*_faults(nodes, packages, seed, restart)],
        "seed": seed,
        "node": nodes[seed]["node"],
        "last": [seed, *(host for host in nodes if host != seed)][-1],
        "members": [told["node"] for told in nodes.values()],
        "switches_tls": bool(_switching(nodes)),
    }


def _seed(nodes: Told) -> str:
    """The first host of the largest cluster there is, or else the one that has queues; one that runs where there is."""

    def weight(host: str) -> tuple[int, bool, bool]:
        told = nodes[host]
        return len(told["members"]), bool(told["queues"]), told["running"]

    return max(nodes, key=weight)


def _faults(nodes: Told, packages: Told, seed: str, restart: bool) -> Iterator[str]:
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
    versions = {host: told for host, told in packages.items() if told["version"]}
    if len({told["series"] for told in versions.values()}) > 1:
        listed = ", ".join(f"{host} {told['version']}" for host, told in versions.items())
        yield (
            f"Different release series of RabbitMQ make no cluster: after this, the hosts would have {listed}. Set "
            "rabbitmq_version to one that all of them can have, or give all the same distribution."
        )
    yield from _tls(nodes, restart)
    yield from _strangers(nodes, seed)
    running = {told["node"] for told in nodes.values() if told["running"]}
    for host, told in nodes.items():
        if told["partitions"]:
            yield (
                f"The cluster is partitioned: by {host}, {'; '.join(told['partitions'])}. See that the nodes reach "
                "each other on ports 4369 and 25672, then restart those of the smaller part: systemctl restart "
                "rabbitmq-server"
            )
        # Others that are down are told of anyway: one that does not run, and one that is not in the inventory.
        unseen = [node for node in told["down"] if node in running]
        if unseen and not told["partitions"]:
            yield (
                f"{host} sees {', '.join(unseen)} down, which runs: it is cut off, or its application was stopped. See "
                "that the nodes reach each other on ports 4369 and 25672."
            )
        if len(told["members"]) > 1 and not told["running"] and not restart:
            yield (
                f"{host} is a member of a cluster and does not run: systemctl start rabbitmq-server (where several are "
                f"stopped, on all of them at once). If it is gone, have the cluster forget it: {_FORGET}{told['node']}"
            )
        if told["cookie"] == "other" and len(told["members"]) > 1:
            yield (
                f"{host} is in a cluster already, with another Erlang cookie than rabbitmq_cookie_file has. Copy its "
                "/var/lib/rabbitmq/.erlang.cookie to that file, for you alone to read."
            )


def _switching(nodes: Told) -> list[str]:
    """The members of a cluster that are to speak to each other in another way than now."""
    return [host for host, told in nodes.items() if len(told["members"]) > 1 and told["switches_tls"]]


def _tls(nodes: Told, restart: bool) -> Iterator[str]:
    """What keeps nodes from speaking to each other in TLS, or from ceasing to."""
    wanted = {host: told["tls"] for host, told in nodes.items()}
    if len({*wanted.values()}) > 1:
        listed = ", ".join(f"{str(tls).lower()} for {host}" for host, tls in wanted.items())
        yield f"rabbitmq_cluster_tls is {listed}, and nodes hear each other only where all agree. Set it for all hosts."
    elif (hosts := _switching(nodes)) and not restart:
        yield (
            f"rabbitmq_cluster_tls is {str(wanted[hosts[0]]).lower()}, and {', '.join(hosts)} in a cluster that does "
            "otherwise. A node that is switched does not hear the others, so this can't be done one node at a time: "
            f"run {_RESTART}, which stops all of them together and starts them again."
        )


def _strangers(nodes: Told, seed: str) -> Iterator[str]:
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
