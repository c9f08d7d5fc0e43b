"""What a host says of its RabbitMQ: the node's name, its plugins, how its service fares. For Python 3.9 and later."""

from __future__ import annotations

import contextlib
import difflib
import errno
import ipaddress
import json
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ansible.module_utils.rabbitmq_nodes_tls import without_tls
from ansible.module_utils.server_files import RefusedError

SERVICE = "rabbitmq-server"
CTL = Path("/usr/sbin/rabbitmqctl")
ENVIRONMENT = Path("/etc/rabbitmq/rabbitmq-env.conf")
LOGS = Path("/var/log/rabbitmq")
PROC = Path("/proc")
# Without a UTF-8 locale rabbitmqctl reads and writes whatever is not ASCII as something else.
LOCALE = {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}

# Runs a command and returns its exit code, standard output and standard error, as AnsibleModule.run_command does.
Run = Callable[..., "tuple[int, str, str]"]

# Where a node keeps the records of its durable queues, and how the name in one begins: the record
# {resource, <<"vhost">>, queue, <<"name">>} in Erlang's external term format.
_QUEUE_RECORDS = ("rabbit_durable_queue.DC?", "*.LOG", "coordination/*/*.wal", "coordination/*/*/*.segment")
_QUEUE = re.compile(rb"resourcem\0\0\0[\s\S]{1,256}?(?:w\x05|d\0\x05)queuem")

_REASON_LINES, _SUMMARY_LINES = 12, 3


def environment(text: str, service: str = "") -> dict[str, str]:
    """Return RabbitMQ's environment settings, without the prefix RABBITMQ_.

    `text` is that of rabbitmq-env.conf, whose lines may leave the prefix out; `service` is the value of the unit's
    property Environment, which wins (rabbitmq.com, "Configuration", "Environment Variables").
    """
    found: dict[str, str] = {}
    words = [line.strip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    for word in words + _split(service):
        name, equals, value = word.partition("=")
        if equals:
            found[name.replace("export ", "").strip().replace("RABBITMQ_", "", 1)] = value.strip().strip("\"'")
    return found


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def node_name(settings: Mapping[str, str], hostname: str) -> str:
    """Return the name that RabbitMQ's node has after the next start on a host of this (fully qualified) name."""
    long = settings.get("USE_LONGNAME", "").lower() == "true"
    name, at, host = settings.get("NODENAME", "rabbit").partition("@")
    return f"{name}@{host if at else hostname if long else hostname.split('.')[0]}"


def own_name(settings: Mapping[str, str]) -> str:
    """Return the host's name, with its domain where RabbitMQ's node bears that, too."""
    return socket.getfqdn() if settings.get("USE_LONGNAME", "").lower() == "true" else socket.gethostname()


def refuse_unresolvable(node: str) -> None:
    """Raise RefusedError where the host can't resolve the name in its own node's."""
    name = node.partition("@")[2]
    try:
        socket.getaddrinfo(name, None)
    except (OSError, UnicodeError) as error:
        raise RefusedError(
            f"This host can't resolve its own name, {name}, and RabbitMQ does not boot without. Give the name an "
            f"address: echo 127.0.1.1 {shlex.quote(name)} >> /etc/hosts"
        ) from error


def data_directory(settings: Mapping[str, str]) -> Path | None:
    """Return the directory in which each node has one of its own name, or None where one is named for all."""
    if "MNESIA_DIR" in settings:
        return None
    return Path(settings.get("MNESIA_BASE", "/var/lib/rabbitmq/mnesia"))


def abandoned(base: Path, node: str) -> list[str]:
    """Return the names of other nodes than `node` that have durable queues in a data directory."""
    others = [path for path in sorted(base.glob("*@*")) if path.name != node and path.is_dir()]
    return [path.name for path in others if _has_queues(path)]


def _has_queues(node: Path) -> bool:
    # Seen on RabbitMQ 3.10: an empty queue has no directory below msg_stores, only its record in Mnesia's table, or in
    # Mnesia's log until that is dumped. Where metadata are in Khepri, the record is in the logs below coordination.
    files = [file for pattern in _QUEUE_RECORDS for file in node.glob(pattern)]
    return any(node.glob("msg_stores/vhosts/*/queues/*")) or any(_QUEUE.search(file.read_bytes()) for file in files)


def running_node(base: Path) -> str:
    """Return the name of the node that runs on a data directory, by the pid file it keeps there; "" where none does."""
    for path in sorted(base.glob("*@*.pid")):
        try:
            # The number of a node that was killed may be another process's by now.
            command = (PROC / path.read_text().strip() / "comm").read_text()
        except OSError:
            continue
        if command.startswith("beam"):
            return path.name[: -len(".pid")]
    return ""


def refuse_renamed(base: Path, node: str) -> None:
    """Raise RefusedError where `node`, the name after the next start, is not the one that has the queues."""
    running, others = running_node(base), abandoned(base, node)
    if running and running != node:
        other = running
        trouble = (
            f"RabbitMQ runs as {running}, but by this host's name it is {node}: the host or the node was renamed. "
            f"rabbitmqctl looks for {node}, and after its next restart RabbitMQ would be that, empty"
        )
    elif others:
        other = others[0]
        trouble = (
            f"By this host's name RabbitMQ's node is {node}, but {base} holds the queues of {other}: the host or the "
            f"node was renamed, and what waits in {other} can't be seen from {node}"
        )
    else:
        return
    remedy = (
        f"Give the host its name back: hostnamectl set-hostname {shlex.quote(other.partition('@')[2])} && "
        f"systemctl restart {SERVICE}"
    )
    if other != running:
        remedy += (
            f". If nothing of {other} is wanted any more, move it away: mv {shlex.quote(str(base / other))} /root/"
        )
    raise RefusedError(f"{trouble}. {remedy}")


def refuse_unknown_plugins(wanted: Iterable[str], listed: str) -> None:
    """Raise RefusedError where a plugin is not among those ``rabbitmq-plugins list --minimal`` printed."""
    known = {line.strip() for line in listed.splitlines() if re.fullmatch(r"[a-z]\w*", line.strip())}
    unknown = [name for name in wanted if name not in known]
    if not unknown:
        return
    guesses = [guess for name in unknown for guess in difflib.get_close_matches(name, sorted(known), 1)]
    raise RefusedError(
        f"rabbitmq_plugins names {', '.join(unknown)}, which this host's RabbitMQ does not know. "
        f"{'Did you mean ' + ', '.join(guesses) + '? ' if guesses else ''}"
        "`rabbitmq-plugins list` on the host shows those it knows; nothing has changed."
    )


def refuse_foreign_addresses(addresses: Mapping[str, str]) -> None:
    """Raise RefusedError where an address to listen on, by the variable it stands in, is not one of this host's."""
    for variable, address in addresses.items():
        if not address:
            continue
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((address, 0))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                raise RefusedError(
                    f"{variable} is {address}, which is no address of this host, so RabbitMQ could not listen there. "
                    "Set it to one of the host's own (`ip address` shows them), or leave it empty for all of them; "
                    "nothing has changed."
                ) from error


def telling(text: str) -> str:
    """Return the lines of a journal or a log that say why RabbitMQ did not boot; "" where none does.

    RabbitMQ logs what it finds wrong as errors, then prints BOOT FAILED with a summary; the reports of its supervisors
    that follow say nothing more.
    """
    kept: list[str] = []
    after = -1  # lines of the summary that have been read
    for line in text.splitlines():
        level, bare = _bare(line)
        if after >= 0 and bare.startswith("supervisor:"):
            break
        if "BOOT FAILED" in bare:
            after = 0
        elif bare.strip("=#* ") and bare not in kept and (after >= 0 or level == "error"):
            kept.append(bare)
            after += after >= 0
        if after == _SUMMARY_LINES:
            break
    return "\n".join(kept[-_REASON_LINES:])


def _bare(line: str) -> tuple[str, str]:
    """Return a line's level and its text, without time stamp and process."""
    match = re.fullmatch(r"\d{4}-\d\d-\d\d \S+ \[(\w+)\] <[\d.]+> ?(.*)", line.strip())
    return (match[1], match[2].strip()) if match else ("", line.strip())


def unreachable(said: str) -> str:
    """Return what to tell of a rabbitmqctl that can't reach its node, with RabbitMQ's own words; else "".

    `said` is what rabbitmqctl printed.
    """
    if not re.search(r"unable to (connect|perform)|nodedown|distribution failed", said, re.IGNORECASE):
        return ""
    lines = [line.strip() for line in said.splitlines()]
    # The general advice between the first line and the diagnostics is left out.
    start = lines.index("DIAGNOSTICS") + 2 if "DIAGNOSTICS" in lines else 1
    words = "\n".join(line for line in [lines[0], *lines[start:]] if line)
    if "TCP connection succeeded but Erlang distribution failed" in said:
        step = (
            "The node runs, but with another Erlang cookie than the one in /var/lib/rabbitmq/.erlang.cookie. If the "
            f"file was changed on purpose, restart RabbitMQ (systemctl restart {SERVICE}); if not, put the old one back"
        )
    else:
        step = f"See that it runs (systemctl status {SERVICE}) and that the host can resolve its own name"
    return f"rabbitmqctl can't reach RabbitMQ's node on this host. {step}. RabbitMQ says:\n{words}"


class Host:
    """The host this runs on, and its RabbitMQ."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.booted = Path("/run/systemd/system").is_dir()  # sd_booted(3)
        self.installed = CTL.exists()
        try:
            text = ENVIRONMENT.read_text()
        except OSError:
            text = ""
        _, unit, _ = (
            run(["systemctl", "show", "--property=Environment", "--value", SERVICE]) if self.booted else (0, "", "")
        )
        self._unit = unit
        self._settings = environment(text, unit)
        self.node = node_name(self._settings, own_name(self._settings))

    @property
    def running(self) -> bool:
        """Whether RabbitMQ's service is active."""
        return self.booted and self._run(["systemctl", "is-active", "--quiet", SERVICE])[0] == 0

    @property
    def node_tls(self) -> bool:
        """Whether the node, at its next start, speaks to other nodes in TLS (rabbitmq.com/docs/clustering-ssl)."""
        return "inet_tls" in self._settings.get("SERVER_ADDITIONAL_ERL_ARGS", "")

    @property
    def data_directory(self) -> Path | None:
        """The directory in which each node has one of its own name, or None where one is named for all."""
        return data_directory(self._settings)

    @property
    def abandoned_queues(self) -> list[str]:
        """Where the host's node, which does not run, has queues: one entry, or none."""
        base = self.data_directory
        return [f"those in {base / self.node}"] if base and _has_queues(base / self.node) else []

    def stop(self) -> None:
        """Stop RabbitMQ, by the cookie and the protocol that it runs with: by others, nobody could tell it to."""
        self._run(["systemctl", "stop", SERVICE])

    def restart(self, ports: Iterable[int]) -> str:
        """Start RabbitMQ, or stop it and start it again.

        Return "" where it has booted and listens on `ports`, otherwise why not, in its own words where it has any.
        """
        since, logs = time.time(), {path: path.stat().st_size for path in LOGS.glob("*.log")}
        self._run(["systemctl", "reset-failed", SERVICE])
        if self._run(["systemctl", "restart", SERVICE])[0] or not self.running:
            return self._reason(since, logs)
        missing = sorted(set(ports) - self._listened_on()) if ports else []
        if missing:
            # RabbitMQ itself logs that and goes on without the port.
            return (
                f"RabbitMQ does not listen on port {missing[0]}, which another program may have taken: "
                f"ss -ltnp 'sport = :{missing[0]}'"
            )
        return ""

    def _listened_on(self) -> set[int]:
        code, output, _ = self._run(["rabbitmq-diagnostics", "--quiet", "--formatter", "json", "listeners"])
        return set() if code else {int(listener["port"]) for listener in json.loads(output)["listeners"]}

    def _reason(self, since: float, logs: Mapping[Path, int]) -> str:
        """Return why RabbitMQ did not boot, by its journal since then, or by what its logs hold beyond these sizes."""
        command = ["journalctl", "-u", SERVICE, f"--since=@{since:.0f}", "-o", "cat", "--no-pager", "-n", "400"]
        texts = [self._run(command)[1]]
        # On Debian its unit sends standard output there.
        for path in (LOGS / "rabbitmq-server.log", LOGS / f"{self.node}.log"):
            with contextlib.suppress(OSError), path.open("rb") as log:
                log.seek(logs.get(path, 0))
                texts.append(log.read().decode(errors="replace"))
        return next(filter(None, map(telling, texts)), f"see journalctl -u {SERVICE} and {LOGS}")

    def reread_certificates(self) -> None:
        """Have RabbitMQ read its certificates anew (rabbitmq.com, "TLS Support"). Raises RefusedError."""
        code, output, error = self._run(["rabbitmqctl", "eval", "ssl:clear_pem_cache()."])
        if code:
            said = error.strip() or output.strip()
            raise RefusedError(unreachable(said) or f"RabbitMQ did not read its new certificates: {said}")

    def refuse_renamed(self) -> None:
        """Raise RefusedError where RabbitMQ's queues belong to a node of another name."""
        if base := data_directory(self._settings):
            refuse_renamed(base, self.node)

    def refuse_unresolvable(self) -> None:
        """Raise RefusedError where the host can't resolve its own name; while an image is made it has another."""
        if self.booted:
            refuse_unresolvable(self.node)

    def refuse_foreign_addresses(self, addresses: Mapping[str, str]) -> None:
        """Raise RefusedError where an address is not one of this host's."""
        refuse_foreign_addresses(addresses)

    def refuse_other_arguments(self) -> None:
        """Raise RefusedError where somebody has set the runtime's arguments that turn on TLS between nodes."""
        text = without_tls(ENVIRONMENT.read_text()) if ENVIRONMENT.exists() else ""
        taken = sorted({"SERVER_ADDITIONAL_ERL_ARGS", "CTL_ERL_ARGS"} & environment(text, self._unit).keys())
        if taken:
            raise RefusedError(
                f"rabbitmq_cluster_tls is true, and {' and '.join(taken)} of this host's RabbitMQ is set already, in "
                f"{ENVIRONMENT} or in the unit's environment, so the one for TLS would not count. Take it out there; "
                "nothing has changed."
            )

    def refuse_unknown_plugins(self, wanted: Iterable[str]) -> None:
        """Raise RefusedError where RabbitMQ does not know a plugin."""
        code, output, error = self._run(["rabbitmq-plugins", "list", "--minimal"])
        if code:
            raise RefusedError(f"rabbitmq-plugins list failed: {error.strip() or output.strip()}")
        refuse_unknown_plugins(wanted, output)
