"""A node and the cluster it is a member of, or is to join. For Python 3.9 and later."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.rabbitmq_host import SERVICE, Host, Run, unreachable
from ansible.module_utils.server_files import RefusedError

COOKIE = Path("/var/lib/rabbitmq/.erlang.cookie")
_PATIENCE = 300  # seconds for the other nodes to catch up
_DRAINED = (0, 69)  # 69 where the node is being drained already
_REPLICAS = 3  # of a quorum queue, RabbitMQ's own default; a smaller cluster has as many as it has nodes


@dataclass(frozen=True)
class Status:
    """What a node says of its cluster: every member, those that run, and what is wrong."""

    members: list[str]
    up: list[str]
    partitions: list[str]
    alarms: list[str]

    @property
    def down(self) -> list[str]:
        """The members that do not run, or can't be reached."""
        return [node for node in self.members if node not in self.up]


def ctl(run: Run, *words: str) -> str:
    """Run a command of RabbitMQ's that speaks to the host's node; return what it printed. Raises RefusedError."""
    code, output, error = run(list(words))
    if code:
        said = error.strip() or output.strip()
        raise RefusedError(unreachable(said) or _paused(said) or f"{' '.join(words)} failed. RabbitMQ says: {said}")
    return str(output)


def _paused(said: str) -> str:
    """Return what to tell of a node whose application does not run, with RabbitMQ's own words; else ""."""
    if "'rabbit' app" not in said:
        return ""
    return (
        "RabbitMQ's node on this host runs without its application. Cut off from most of its cluster it has paused "
        "itself, and goes on by itself once it reaches the others on ports 4369 and 25672. Where it reaches them and "
        "does not go on within a minute, RabbitMQ has tried in vain, or hangs (its log says which), and does not try "
        f"again: systemctl restart {SERVICE}. Or somebody stopped it, and it goes on with: rabbitmqctl start_app. "
        f"RabbitMQ says: {said}"
    )


def rows(run: Run, *words: str) -> Any:
    """Run a command of rabbitmqctl and return what it printed as JSON. Raises RefusedError."""
    return json.loads(ctl(run, "rabbitmqctl", "--quiet", "--formatter", "json", *words))


def status(run: Run) -> Status:
    """Ask the host's node, which runs. Raises RefusedError."""
    told = rows(run, "cluster_status")
    members = [*told.get("disk_nodes", ()), *told.get("ram_nodes", ())]
    partitions = [f"{node} can't see {', '.join(others)}" for node, others in (told.get("partitions") or {}).items()]
    alarms = [alarm if isinstance(alarm, str) else json.dumps(alarm) for alarm in told.get("alarms") or ()]
    return Status(sorted(members), sorted(told.get("running_nodes", ())), partitions, alarms)


def remembered(base: Path | None, node: str) -> list[str]:
    """Return the members of a stopped node's cluster, as it has written them down; none where it never ran."""
    try:
        text = ((base or Path()) / node / "cluster_nodes.config").read_text()
    except OSError:
        return []
    return sorted(re.findall(r"[\w.-]+@[\w.-]+", text.partition("]")[0]))


def queues(run: Run) -> list[str]:
    """Return all queues of a node that runs, with their virtual hosts where those are not the usual one."""
    found = []
    for vhost in rows(run, "list_vhosts", "name"):
        name = vhost["name"]
        found += [
            queue["name"] if name == "/" else f"{queue['name']} ({name})"
            for queue in rows(run, "list_queues", "--vhost", name, "name")
        ]
    return sorted(found)


def classic_queues_on(run: Run, node: str) -> list[str]:
    """Return the durable classic queues that live on a node that is down: nobody else has them. Raises RefusedError."""
    found = []
    for vhost in rows(run, "list_vhosts", "name"):
        listed = rows(run, "list_queues", "--vhost", vhost["name"], "--offline", "name", "type", "pid")
        found += [
            queue["name"] for queue in listed if "classic" in str(queue.get("type")) and node in str(queue.get("pid"))
        ]
    return sorted(found)


def unresolved(names: Iterable[str]) -> dict[str, str]:
    """Return which names of other hosts this one can't reach them by, and why."""
    found = {}
    for name in names:
        try:
            addresses = {row[4][0] for row in socket.getaddrinfo(name, None, socket.AF_INET)}
        except (OSError, UnicodeError) as error:
            found[name] = getattr(error, "strerror", None) or str(error)
            continue
        if all(ipaddress.ip_address(address).is_loopback for address in addresses):
            found[name] = f"is {', '.join(sorted(map(str, addresses)))} here, which is this host itself"
    return found


class Member(Host):  # type: ignore[misc]  # Ansible's import path hides its type
    """A host whose RabbitMQ may be a member of a cluster, and is restarted only where the others can do without it."""

    def step_aside(self) -> None:
        """Have the node's clients and leaders go to other nodes, before it is restarted. Raises RefusedError.

        A node alone has nobody to hand anything to.
        """
        found = status(self._run)
        if len(found.members) < 2:
            return
        refuse_unhealthy(found)
        # Where too few of the others have caught up, queues would stop, and lose what is not on a majority yet.
        ctl(self._run, "rabbitmq-upgrade", "await_online_quorum_plus_one", "--timeout", str(_PATIENCE))
        code, output, error = self._run(["rabbitmq-upgrade", "drain"])
        if code not in _DRAINED:
            raise RefusedError(f"rabbitmq-upgrade drain failed. RabbitMQ says: {error.strip() or output.strip()}")

    def come_back(self) -> None:
        """Wait until the node, which was restarted, sees all members of its cluster. Raises RefusedError."""
        if count := len(status(self._run).members):
            ctl(self._run, "rabbitmqctl", "await_online_nodes", str(count), "--timeout", str(_PATIENCE))


def refuse_unhealthy(found: Status) -> None:
    """Raise RefusedError where a member is down or the cluster is partitioned: one node less may be one too many."""
    if found.partitions:
        raise RefusedError(
            f"The cluster is partitioned: {'; '.join(found.partitions)}. See that the nodes reach each other on ports "
            f"4369 and 25672, then restart those of the smaller part: systemctl restart {SERVICE}"
        )
    if found.down:
        raise RefusedError(
            f"{', '.join(found.down)} is down, and with this node restarted the cluster could lose its majority. Start "
            f"it (systemctl start {SERVICE}), or have the cluster forget it: playbooks/forget_broker.yml -e "
            f"broker={found.down[0]}"
        )


def join(run: Run, node: str, seed: str) -> None:
    """Have an empty node that runs join the cluster of another. Raises RefusedError; it then runs as it did.

    What a node has it loses when it joins.
    """
    if own := queues(run):
        raise RefusedError(
            f"{node} has queues of its own: {', '.join(own)}. They would be gone once it joins {seed}. Move what waits "
            "there and delete them, or take the host out of the group."
        )
    ctl(run, "rabbitmqctl", "stop_app")
    try:
        ctl(run, "rabbitmqctl", "reset")
        ctl(run, "rabbitmqctl", "join_cluster", seed)
    finally:
        ctl(run, "rabbitmqctl", "start_app")


def replicas_due(listed: Iterable[Mapping[str, Any]], members: list[str]) -> list[tuple[str, str]]:
    """Return (queue, node) for each replica that a quorum queue lacks, as one older than its cluster does."""
    due = []
    for queue in listed:
        have = list(queue.get("members") or ())
        if "quorum" not in str(queue.get("type")) or not have:
            continue
        lacking = [node for node in members if node not in have]
        due += [(str(queue["name"]), node) for node in lacking[: max(0, min(_REPLICAS, len(members)) - len(have))]]
    return due


def grow(run: Run, members: list[str], check_mode: bool) -> list[str]:
    """Give every quorum queue the replicas it lacks; return what was done, or would be. Raises RefusedError."""
    done = []
    for vhost in rows(run, "list_vhosts", "name"):
        name = vhost["name"]
        listed = rows(run, "list_queues", "--vhost", name, "name", "type", "members")
        for queue, node in replicas_due(listed, members):
            done.append(f"give {queue} a replica on {node}")
            if not check_mode:
                patterns = ["--vhost-pattern", f"^{re.escape(name)}$", "--queue-pattern", f"^{re.escape(queue)}$"]
                ctl(run, "rabbitmq-queues", "grow", node, "all", *patterns)
    return done


def rebalance(run: Run) -> None:
    """Spread the leaders of quorum queues over the nodes again, after restarts have moved them. Raises RefusedError."""
    ctl(run, "rabbitmq-queues", "rebalance", "quorum")
