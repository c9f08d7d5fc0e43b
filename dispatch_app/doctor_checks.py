"""The doctor's checks: a table in dependency order, each a question to a host and its broker.

A check returns None where all is well, or a finding: what was seen, what that means, and one command that mends it.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from . import topology
from .doctor_broker import Attempt, Broker, Depth, LookError
from .doctor_host import NAME, OLDEST_PYTHON, UNIT, USER, Host
from .settings import Settings, SettingsError

ERROR, WARNING = "error", "warning"
HOST, BROKER, CONTROLLER = "host", "broker", "controller"  # where a fix is run

# Octets and inodes below which the ledger is at risk.
DISK_FREE, INODES_FREE = 16 << 20, 64
SKEW = 30.0  # seconds
_BACKLOG_SECONDS = 1.5  # in which a working consumer finishes something
_CRASHES = 2  # restarts by systemd, the last one within the minute

_RESTART = f"systemctl restart {NAME}"
_PROVISION = "ansible-playbook playbooks/dispatch.yml"


class Finding(NamedTuple):
    """What a check found."""

    evidence: str
    cause: str
    command: str
    where: str = HOST


class Check(NamedTuple):
    """One question. It is skipped where one of `needs` found something or was skipped itself.

    A `symptom` is reported only where nothing else that is an error explains it.
    """

    id: str
    area: str
    severity: str
    title: str
    look: Callable[[Patient], Finding | None]
    needs: tuple[str, ...] = ()
    symptom: bool = False


class Patient:
    """The host that is looked at and, once its settings can be read, its broker."""

    def __init__(self, host: Host) -> None:
        self.host = host

    @cached_property
    def broker(self) -> Broker:
        return Broker(self.host.settings)

    @cached_property
    def depths(self) -> dict[str, Depth | None]:
        """The order queue, the retry queues and the dead letters, by name. Raises LookError."""
        s = self.broker.settings
        names = (s.queue, *topology.retry_queues(s), topology.dead_queue(s))
        return {name: self.broker.depth(name) for name in names}

    @property
    def orders(self) -> Depth | None:
        return self.depths[self.broker.settings.queue]


def _provision(evidence: str, cause: str, playbook: str = "dispatch") -> Finding:
    return Finding(evidence, cause, f"ansible-playbook playbooks/{playbook}.yml", CONTROLLER)


# -- the unit, the user and the release -----------------------------------------------


def unit_missing(p: Patient) -> Finding | None:
    seen = {"not-found": f"systemd knows no {NAME}.service", "": "systemd does not answer"}.get(
        p.host.unit["LoadState"]
    )
    return _provision(seen, "Dispatch has not been provisioned here, or was removed.") if seen else None


def unit_masked(p: Patient) -> Finding | None:
    if "masked" not in (p.host.unit["LoadState"], p.host.unit["UnitFileState"]):
        return None
    seen = f"{p.host.fragment} leads to /dev/null"
    return _provision(seen, "The unit is masked, so nothing can start it; the play writes it anew.")


def user_missing(p: Patient) -> Finding | None:
    name = p.host.directive("User")
    if not name or p.host.user:
        return None
    add = f"useradd --system --home-dir /app --no-create-home --shell /usr/sbin/nologin {shlex.quote(name)}"
    return Finding(f"the unit says User={name}, and no such user exists", "The service's user is missing.",
                   f"{add} && {_RESTART}")  # fmt: skip


def user_wrong(p: Patient) -> Finding | None:
    name = p.host.directive("User")
    if name == USER:
        return None
    seen = f"the unit says User={name}" if name else "the unit has no User=, so the service runs as root"
    cause = f"The service does not run as {USER}, who owns its files and nothing else."
    if p.host.ours:
        return _provision(seen, cause)
    edit = f"sed -i -e '/^User=/d' -e 's/^\\[Service\\]$/&\\nUser={USER}/' {p.host.fragment}"
    return Finding(seen, cause, f"{edit} && systemctl daemon-reload && {_RESTART}")


def artifact_missing(p: Patient) -> Finding | None:
    home = p.host.home
    if home.is_dir() and any(home.iterdir()):
        return None
    target = f", which leads to {p.host.release}," if home.is_symlink() else ""
    seen = f"{home}{target} is missing or empty"
    return _provision(seen, "The artifact has not been fetched and unpacked on this host, or was deleted.")


def venv_missing(p: Patient) -> Finding | None:
    if p.host.venv is None or os.path.lexists(p.host.executable):
        return None
    return _rebuild(p, f"{p.host.executable} isn't there", "The release has no venv, or only a part of one.")


def runtime_missing(p: Patient) -> Finding | None:
    if p.host.venv is None or p.host.interpreter.exists():
        return None
    path = p.host.interpreter
    install = f"dnf reinstall -y {path.name}"
    if p.host.package_manager == "apt-get":
        install = f"apt-get update && apt-get install --reinstall -y {path.name}-minimal"
    return Finding(f"{p.host.executable} leads to {path}, which isn't there",
                   "The Python that the release was built with is no longer installed.",
                   f"{install} && {_RESTART}")  # fmt: skip


def runtime_too_old(p: Patient) -> Finding | None:
    if p.host.venv is None:
        return None
    done = p.host.python("import sys; print(*sys.version_info[:2])")
    found = re.fullmatch(r"(\d+) (\d+)", done)
    if found is None or (int(found[1]), int(found[2])) >= OLDEST_PYTHON:
        return None
    seen = f"{p.host.executable} is Python {found[1]}.{found[2]}"
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return _rebuild(p, seen, f"The venv's Python is too old: Dispatch needs {oldest} or later.")


def venv_broken(p: Patient) -> Finding | None:
    if p.host.venv is None or p.host.python("print('runs')") == "runs":
        return None
    return _rebuild(p, f"{p.host.executable} does not run", "The release's venv is broken.")


def executable_missing(p: Patient) -> Finding | None:
    path = p.host.executable
    if path.exists():
        return None
    sources = sorted(p.host.home.glob("*.go"))
    if sources:
        build = f"cd {p.host.home} && go build -o {path} && {_RESTART}"
        seen = f"{path} isn't there, {sources[0].name} is"
        return Finding(seen, "The program was not built, or its build failed.", build)
    return _provision(f"ExecStart= names {path}, which isn't there", "The program is missing, or its path is wrong.")


def unreadable(p: Patient) -> Finding | None:
    """Directories first, from the top: below one that is closed nothing can be looked at."""
    target = p.host.release if p.host.venv else p.host.executable
    for path in (*reversed(target.parents), target):
        if path.is_dir() and not p.host.may("-x", path):
            return _open(p, "enter", path, "a+rx", path)
    if p.host.venv:
        for path in sorted(p.host.release.glob("**/*.py"))[:2000]:
            if not path.stat().st_mode & stat.S_IROTH and not p.host.may("-r", path):
                return _open(p, "read", path, "-R a+rX", p.host.release)
    return None


def not_executable(p: Patient) -> Finding | None:
    path = Path(os.path.realpath(p.host.executable))
    if p.host.may("-x", path):
        return None
    return _open(p, "execute", path, "a+rx", path)


def dependency_missing(p: Patient) -> Finding | None:
    lost = _lost_module(p)
    if lost is None or lost.startswith("dispatch_app"):
        return None
    cause = f"The venv lacks what the release requires: {lost}."
    return _rebuild(p, p.host.import_failure.last_line, cause)


def release_damaged(p: Patient) -> Finding | None:
    if p.host.venv is None or p.host.version is None or p.host.import_failure.code == 0:
        return None
    seen = p.host.import_failure.last_line or "the import does not end"
    return _reinstall(p, seen, "The release's code can't be loaded.")


def _lost_module(p: Patient) -> str | None:
    """The module that is not there, of those the release imports."""
    if p.host.venv is None or not (p.host.release / "dispatch_app").is_dir() or p.host.import_failure.code == 0:
        return None
    found = re.search(r"No module named '([\w.]+)'", p.host.import_failure.last_line)
    return found[1] if found else None


def _mode(path: Path) -> str:
    return stat.filemode(path.stat().st_mode)


def _open(p: Patient, what: str, path: Path, mode: str, opened: Path) -> Finding:
    return Finding(f"user {p.host.directive('User')} may not {what} {path} ({_mode(path)})",
                   "The service's user may not use the release.", f"chmod {mode} {opened} && {_RESTART}")  # fmt: skip


def _rebuild(p: Patient, evidence: str, cause: str) -> Finding:
    """Make the venv anew as the role app_release does; without an interpreter for it the play has to bring one."""
    release, interpreter = p.host.release, p.host.new_interpreter
    if interpreter is None or not (release / "requirements.txt").exists():
        return _provision(evidence, cause)
    wheels = "--no-index --find-links wheels " if (release / "wheels").is_dir() else ""
    # As roles/app_release/files/build.sh: with pip where the release carries it, or else with the distribution's.
    carried = next(iter(release.glob("installer/pip-*.whl")), None)
    without, pip = ("--without-pip ", f"installer/{carried.name}/pip") if carried else ("", "-m pip")
    install = f"venv/bin/python {pip} install --quiet {wheels}-r requirements.txt"
    # Not --clear, which the venv would remember: it would not be as it was built.
    venv = f"rm -rf venv && {interpreter} -m venv {without}venv"
    return Finding(evidence, cause, f"cd {release} && {venv} && {install} && {_RESTART}")


def _reinstall(p: Patient, evidence: str, cause: str) -> Finding:
    remove = f"ansible {{host}} --become -m ansible.builtin.file -a 'path={p.host.release} state=absent'"
    return Finding(evidence, cause, f"{remove} && {_PROVISION}", CONTROLLER)


# -- the settings ---------------------------------------------------------------------


def address_placeholder(p: Patient) -> Finding | None:
    address = p.host.environment.get("AMQP_HOST", "")
    if not re.search("[<>]", address):
        return None
    return _provision(f"AMQP_HOST is {address}", "RabbitMQ's address is still the runbook's placeholder: "
                      "dispatch_amqp_host in the inventory has to say where RabbitMQ is.")  # fmt: skip


def settings_invalid(p: Patient) -> Finding | None:
    try:
        p.host.settings  # noqa: B018 - reading them is the check
    except SettingsError as error:
        return _provision("; ".join(error.problems), "The service can't start with these settings.")
    return None


def unit_edited(p: Patient) -> Finding | None:
    if not p.host.ours:
        return None
    if p.host.drop_ins:
        return Finding(f"{', '.join(p.host.drop_ins)} change the unit", "The unit is overridden by hand.",
                       f"systemctl revert {NAME} && {_RESTART}")  # fmt: skip
    # The release's mark says since when it is live. The end of every activation changes this directory.
    activated = p.host.release / ".activated"
    if not activated.exists() or UNIT.stat().st_mtime <= Path("/etc", NAME).stat().st_mtime:
        return None
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(UNIT.stat().st_mtime))
    return _provision(f"{UNIT} was changed {moment}, after the last play", "The unit was edited by hand.")


def unit_not_reloaded(p: Patient) -> Finding | None:
    if p.host.unit["NeedDaemonReload"] != "yes":
        return None
    return Finding(f"{p.host.fragment} has changed since systemd read it", "The unit was changed and not reloaded.",
                   f"systemctl daemon-reload && {_RESTART}")  # fmt: skip


def restart_pending(p: Patient) -> Finding | None:
    if not p.host.active or not p.host.stale:
        return None
    return Finding(f"changed since process {p.host.pid} was started: {', '.join(p.host.stale)}",
                   "The service runs with what was, not with what is configured.", _RESTART)  # fmt: skip


def unit_disabled(p: Patient) -> Finding | None:
    if p.host.unit["UnitFileState"] != "disabled":
        return None
    return Finding(f"systemctl is-enabled {NAME} says disabled", "The service will not start at the next boot.",
                   f"systemctl enable {NAME}")  # fmt: skip


def password_readable(p: Patient) -> Finding | None:
    for value in p.host.service.get("Environment", []):
        if "AMQP_PASS=" in value:
            return _provision(f"{p.host.fragment} has Environment=AMQP_PASS=…",
                              "Every user of the host can read the password, with systemctl show; "
                              "the play makes it a credential.")  # fmt: skip
    files = [path for path in p.host.environment_files if path.is_file()]
    secret = [path for path in files if "AMQP_PASS=" in path.read_text(encoding="utf-8", errors="replace")]
    secret += [path for name, path in p.host.credentials.items() if name != "amqp_tls_ca"]
    for path in secret:
        above = path.parent.stat().st_mode if path.parent.exists() else 0
        if path.exists() and path.stat().st_mode & 0o077 and above & 0o001:
            cause = "Users other than root can read the password."
            closed = f"chmod 0700 {path.parent} && " if p.host.ours and path not in files else ""
            return Finding(f"{path} is {_mode(path)}", cause, f"{closed}chmod 0600 {path}")
    return None


# -- the state ------------------------------------------------------------------------


def state_read_only(p: Patient) -> Finding | None:
    if p.host.state is None or not p.host.state.exists():
        return None
    if os.statvfs(p.host.state_mount).f_flag & os.ST_RDONLY:
        return Finding(f"{p.host.state_mount} is mounted read-only", "The ledger can't be written.",
                       f"mount -o remount,rw {p.host.state_mount} && {_RESTART}")  # fmt: skip
    if p.host.may("-w", p.host.state):
        return None
    name = p.host.directive("User") or "root"
    return Finding(f"{p.host.state} is {_mode(p.host.state)} of uid {p.host.state.stat().st_uid}",
                   f"User {name} may not write the ledger.",
                   f"chown -R {name}: {p.host.state} && chmod 0700 {p.host.state} && {_RESTART}")  # fmt: skip


def disk_full(p: Patient) -> Finding | None:
    octets, inodes = p.host.disk
    if octets >= DISK_FREE and inodes >= INODES_FREE:
        return None
    old = r"find /var/log -xdev -type f \( -name '*.gz' -o -name '*.old' -o -name '*.[0-9]' \) -delete"
    return Finding(f"{p.host.state_mount} has {octets >> 10} KiB and {inodes} inodes left",
                   "The disk is full: orders can't be recorded, and wait.",
                   f"{old} && journalctl --rotate --vacuum-size=50M && {_RESTART}")  # fmt: skip


def ledger_damaged(p: Patient) -> Finding | None:
    problem = p.host.ledger_problem() if p.host.ledger else None
    if problem is None:
        return None
    aside = 'mv ledger.db* "$(mktemp -d damaged.XXXXXX)"'
    return Finding(f"{p.host.ledger}: {problem}", "The ledger is damaged; a new one knows no order before it.",
                   f"cd {p.host.state} && systemctl stop {NAME} && {aside} && systemctl start {NAME}")  # fmt: skip


def ledger_locked(p: Patient) -> Finding | None:
    if p.host.ledger is None:
        return None
    before = p.host.ledger_lock()
    if before is None:
        return None
    time.sleep(0.5)  # a lock that comes and goes is none
    found = p.host.ledger_lock()
    if found != before:
        return None
    return Finding(f"process {found.pid} ({found.command}) holds the ledger's write lock",
                   "Orders can't be recorded, and wait, until that process lets go.", f"kill {found.pid}")  # fmt: skip


def clock_skew(p: Patient) -> Finding | None:
    ahead = p.broker.clock
    if abs(ahead) <= SKEW:
        return None
    return Finding(f"this host's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the broker's",
                   "The clocks differ: times in ledger and logs mislead, and certificates may seem invalid.",
                   "timedatectl set-ntp true")  # fmt: skip


# -- the network and the login ----------------------------------------------------------


def reached(kind: str, p: Patient) -> Finding | None:
    """An address that does not work; where another one of AMQP_HOST does, that is for the check `address-idle`."""
    if p.broker.host is not None:
        return None
    first = p.broker.attempts[0]
    return _network(p, first) if first.kind == kind else None


def address_idle(p: Patient) -> Finding | None:
    failed = [attempt for attempt in p.broker.attempts if attempt.kind]
    return _network(p, failed[0]) if failed and p.broker.host else None


def _network(p: Patient, attempt: Attempt) -> Finding:
    port = p.broker.settings.port
    if attempt.kind == "broker-refused":
        return Finding(attempt.evidence, "RabbitMQ does not run there, or listens on another port.",
                       "systemctl start rabbitmq-server", BROKER)  # fmt: skip
    if attempt.kind == "broker-filtered":
        allow = f"iptables -I INPUT -p tcp -s {p.broker.own_address} --dport {port} -j ACCEPT"
        cause = "A firewall is in the way, or no host has that address; on EC2 RabbitMQ's security group has to let "
        return Finding(attempt.evidence, f"{cause}this host in on port {port}.", allow, BROKER)
    if attempt.kind == "broker-unresolvable":
        return _provision(attempt.evidence, "The name in AMQP_HOST does not exist for this host: "
                          "correct dispatch_amqp_host in the inventory, or this host's DNS.")  # fmt: skip
    return _provision(attempt.evidence, "No route leads there: correct dispatch_amqp_host in the inventory.")


def logged_in(kind: str, p: Patient) -> Finding | None:
    found, s = p.broker.login, p.broker.settings
    if found.kind != kind:
        return None
    if kind == "tls-expired":
        return _provision(found.evidence, "RabbitMQ's certificate has expired.", "rabbitmq")
    if kind == "tls-untrusted":
        return _provision(found.evidence, "This host does not trust RabbitMQ's certificate: "
                          "dispatch_amqp_tls_ca has to be the CA that signed it.")  # fmt: skip
    if kind == "bad-credentials":
        return _provision(found.evidence, "User or password are wrong; the play sets both ends.", "site")
    if kind == "guest-remote":
        return _provision(found.evidence, "RabbitMQ lets guest in from its own host only: use another user.")
    if kind == "vhost-missing":
        return Finding(found.evidence, "The virtual host does not exist.",
                       f"rabbitmqctl add_vhost {shlex.quote(s.vhost)} && {_grant(s)}", BROKER)  # fmt: skip
    if kind == "permission-missing":
        return Finding(found.evidence, "The user may not use the virtual host.", _grant(s), BROKER)
    return _provision(found.evidence, "What answers there is not RabbitMQ, or TLS is on at one end only.")


def permission_missing(p: Patient) -> Finding | None:
    denied = None if p.broker.login.kind else p.broker.denied()
    if denied is None:
        return logged_in("permission-missing", p)
    return Finding(denied, "The user lacks a permission that Dispatch needs.", _grant(p.broker.settings), BROKER)


def _grant(s: Settings) -> str:
    return f"rabbitmqctl set_permissions -p {shlex.quote(s.vhost)} {shlex.quote(s.user)} '.*' '.*' '.*'"


# -- exchange and queues ------------------------------------------------------------------


def declared_otherwise(p: Patient) -> Finding | None:
    """By the management API; without it, by what the service says it was refused."""
    s, told = p.broker.settings, p.host.unit["StatusText"]
    vhost = shlex.quote(s.vhost)
    expected = topology.queues(s) if p.host.ours else {s.queue: None}
    try:
        for name, arguments in expected.items():
            found = p.broker.queue(name)
            if found and (found["arguments"] != (arguments or {}) or not found["durable"] or found["auto_delete"]):
                seen = f"queue {name}: durable {found['durable']}, arguments {found['arguments']}"
                delete = f"rabbitmqctl delete_queue --vhost {vhost} --if-empty {shlex.quote(name)}"
                cause = (
                    "The queue was declared otherwise than RoboShop's services do (406); deleted, it is declared anew."
                )
                return Finding(seen, cause, delete, BROKER)
    except LookError:
        if "declared otherwise" not in told:
            raise
        delete = f"rabbitmqctl delete_queue --vhost {vhost} --if-empty {shlex.quote(s.queue)}"
        return Finding(told, "A queue was declared otherwise than RoboShop's services do (406).", delete, BROKER)
    return None


def queue_missing(p: Patient) -> Finding | None:
    s = p.broker.settings
    if p.host.starting:
        raise LookError("the service is still starting")
    lost = [] if p.orders else [f"queue {s.queue}"]
    if p.broker.refusal("exchange_declare", s.exchange, passive=True)[0] == 404:
        lost.append(f"exchange {s.exchange}")
    if not lost:
        return None
    seen = f"there is no {' and no '.join(lost)}"
    return Finding(seen, "It was deleted; Dispatch declares it when it connects.", _RESTART)


def queue_unbound(p: Patient) -> Finding | None:
    s = p.broker.settings
    keys = p.broker.bindings()
    if s.routing_key in keys:
        return None
    others = f" (but {', '.join(keys)})" if keys else ""
    seen = f"queue {s.queue} is not bound to exchange {s.exchange} with key {s.routing_key}{others}"
    return Finding(seen, "Orders that payment publishes vanish; Dispatch binds the queue when it connects.", _RESTART)


# -- the flow of orders -------------------------------------------------------------------


def broker_alarm(p: Patient) -> Finding | None:
    for node in p.broker.nodes():
        if node.get("mem_alarm"):
            used, limit = node.get("mem_used", 0) >> 20, node.get("mem_limit", 0) >> 20
            return Finding(f"{node['name']} uses {used} MiB of memory, its limit is {limit} MiB",
                           "RabbitMQ's memory alarm blocks publishers: new orders do not come in.",
                           "rabbitmqctl set_vm_memory_high_watermark 0.4", BROKER)  # fmt: skip
        if node.get("disk_free_alarm"):
            free, limit = node.get("disk_free", 0) >> 20, node.get("disk_free_limit", 0) >> 20
            return Finding(f"{node['name']} has {free} MiB of disk left, its limit is {limit} MiB",
                           "RabbitMQ's disk alarm blocks publishers: new orders do not come in.",
                           "rabbitmqctl set_disk_free_limit 50MB", BROKER)  # fmt: skip
    return None


def service_stopped(p: Patient) -> Finding | None:
    if p.host.unit["ActiveState"] != "inactive":
        return None
    return Finding(f"systemctl is-active {NAME} says inactive", "The service was stopped, or never started.",
                   f"systemctl start {NAME}")  # fmt: skip


def service_failed(p: Patient) -> Finding | None:
    if p.host.unit["ActiveState"] != "failed":
        return None
    seen = f"result {p.host.unit['Result']}, exit code {p.host.unit['ExecMainStatus']}; {_last_words(p)}"
    return Finding(seen, "The service ended with a failure after which systemd does not start it again.", _RESTART)


def crash_loop(p: Patient) -> Finding | None:
    restarts = int(p.host.unit["NRestarts"] or 0)
    looping = p.host.unit["SubState"] == "auto-restart" or (restarts >= _CRASHES and p.host.uptime < 60)
    if not looping or (p.host.active and p.host.ask("/readyz")[0] == 200 and p.host.uptime > 5):
        return None
    seen = f"{restarts} restarts; {_last_words(p)}"
    cause = "The program crashes soon after each start."
    releases = [path.parent for path in Path("/app/releases").glob("*/.activated")]
    if len(releases) > 1:
        return _provision(seen, f"{cause} The release before this one is still here.", "rollback")
    return _reinstall(p, seen, cause) if p.host.version else _provision(seen, cause)


def _last_words(p: Patient) -> str:
    """The last exception or panic in the journal."""
    named = re.compile(r"(panic: |[A-Za-z_][\w.]*(Error|Exception|Interrupt)\b)")
    lines = [line for line in p.host.journal if named.match(line)] or p.host.journal
    return f"its journal says: {lines[-1][:300]}" if lines else "its journal is empty"


def service_hung(p: Patient) -> Finding | None:
    if not p.host.ours or not p.host.active or p.host.uptime < 5:
        return None
    status, text = p.host.ask("/livez")
    if status == 200:
        return None
    seen = f"{p.host.http}/livez " + (f"answers {status}: {text.strip()}" if status else f"does not answer ({text})")
    return Finding(seen, "The process is there but does no work.", _RESTART)


def no_consumer(p: Patient) -> Finding | None:
    if p.host.starting:
        raise LookError("the service is still starting")
    if p.orders is None or p.orders.consumers:
        return None
    queue = p.broker.settings.queue
    return Finding(f"queue {queue} has no consumer, and {p.orders.ready} orders wait",
                   "Nobody consumes: orders pile up.", _RESTART)  # fmt: skip


def not_consuming(p: Patient) -> Finding | None:
    if not p.host.ours or not p.host.pid or p.host.starting:
        return None
    status, text = p.host.ask("/readyz")
    if status in (0, 200):
        return None
    return Finding(f"{p.host.http}/readyz answers {status}: {text.strip()}",
                   "This host does not consume, though nothing hinders it now.", _RESTART)  # fmt: skip


def no_progress(p: Patient) -> Finding | None:
    """Messages wait or are out, and nothing has been delivered or acknowledged for the broker's last five seconds."""
    found = p.broker.order_queue
    rates = found.get("message_stats", {})
    moving = sum(rates.get(f"{name}_details", {}).get("rate", 0) for name in ("ack", "deliver", "deliver_no_ack"))
    ready, unacked = found.get("messages_ready", 0), found.get("messages_unacknowledged", 0)
    if moving or not ready + unacked or p.host.progress(_BACKLOG_SECONDS):
        return None
    user = shlex.quote(p.broker.settings.user)
    return Finding(f"{ready} orders wait, {unacked} are delivered and not acknowledged, {found.get('consumers', 0)} "
                   "consumers, and nothing moves", "A consumer holds orders and does not finish them; closing its "
                   "connection gives them back, and Dispatch connects again by itself.",
                   f"rabbitmqctl close_all_user_connections {user} 'it makes no progress'", BROKER)  # fmt: skip


def retry_backlog(p: Patient) -> Finding | None:
    names = topology.retry_queues(p.broker.settings)
    waiting = {name: depth.ready for name in names if (depth := p.depths[name]) and depth.ready}
    if not waiting:
        return None
    hook = p.host.environment.get("DISPATCH_HOOK")
    seen = ", ".join(f"{count} in {name}" for name, count in waiting.items())
    if hook:
        return _provision(f"{seen}; DISPATCH_HOOK is {hook}", "The hook fails, so orders are tried again and again; "
                          "the play takes the hook out, and they come back.")  # fmt: skip
    return _provision(seen, "Orders fail and are tried again; the release before this one may not have the fault.",
                      "rollback")  # fmt: skip


def dead_letters(p: Patient) -> Finding | None:
    name = topology.dead_queue(p.broker.settings)
    depth = p.depths[name]
    if depth is None or not depth.ready:
        return None
    found = (re.match(r'dispatch_orders_dead_total\{reason="(.*)"\}', key) for key in p.host.counters)
    reasons = {match[1]: p.host.counters[match[0]] for match in found if match}
    why = ", ".join(f"{count:.0f} {reason}" for reason, count in sorted(reasons.items()))
    seen = f"{depth.ready} in {name}" + (f"; this process put there: {why}" if why else "")
    keep = f"{NAME} dead show --all > /root/dead-letters.json && {NAME} dead purge --all"
    cause = (
        "Messages that could not be dispatched wait for somebody to look at them. `dispatch dead replay` puts them "
        "back once their cause is mended; this takes them out, into a file."
    )
    return Finding(seen, cause, keep)


_UNIT = ("unit-missing", "unit-masked")
_RUNS = (*_UNIT, "user-missing", "artifact-missing")
_VENV = (*_RUNS, "venv-missing", "runtime-missing", "not-readable")
_SET = (*_UNIT, "address-placeholder", "settings-invalid")
_REACH = (*_SET, "broker-unresolvable", "broker-refused", "broker-filtered", "broker-unreachable")
_LOGIN = (
    *_REACH, "tls-expired", "tls-untrusted", "not-amqp", "guest-remote", "bad-credentials", "vhost-missing",
    "permission-missing",
)  # fmt: skip
_ACTIVE = (*_LOGIN, "service-stopped", "service-failed", "crash-loop")

# In the order in which causes are told: what comes first can cause what comes later.
CHECKS = (
    Check("unit-missing", "service", ERROR, "the unit exists", unit_missing),
    Check("unit-masked", "service", ERROR, "the unit is not masked", unit_masked, ("unit-missing",)),
    Check("user-missing", "release", ERROR, "the service's user exists", user_missing, _UNIT),
    Check("user-wrong", "release", ERROR, "the unit runs as the service's user", user_wrong,
          (*_UNIT, "user-missing")),
    Check("artifact-missing", "release", ERROR, "the artifact is unpacked", artifact_missing, _UNIT),
    Check("not-readable", "release", ERROR, "the user may read the release", unreadable, _RUNS),
    Check("venv-missing", "release", ERROR, "the release has its venv", venv_missing, _RUNS),
    Check("runtime-missing", "release", ERROR, "the venv's Python is installed", runtime_missing,
          (*_RUNS, "venv-missing")),
    Check("executable-missing", "release", ERROR, "the program is there", executable_missing,
          (*_RUNS, "venv-missing", "runtime-missing")),
    Check("not-executable", "release", ERROR, "the user may execute the program", not_executable,
          (*_VENV, "executable-missing")),
    Check("runtime-too-old", "release", ERROR, "the venv's Python is new enough", runtime_too_old,
          (*_VENV, "not-executable")),
    Check("venv-broken", "release", ERROR, "the venv's Python runs", venv_broken, (*_VENV, "not-executable")),
    Check("dependency-missing", "release", ERROR, "all that is required can be imported", dependency_missing,
          (*_VENV, "not-executable", "runtime-too-old", "venv-broken")),
    Check("release-damaged", "release", ERROR, "the release's code can be loaded", release_damaged,
          (*_VENV, "not-executable", "runtime-too-old", "venv-broken", "dependency-missing")),
    Check("address-placeholder", "settings", ERROR, "AMQP_HOST is no placeholder", address_placeholder, _UNIT),
    Check("settings-invalid", "settings", ERROR, "the settings are valid", settings_invalid,
          (*_UNIT, "address-placeholder")),
    Check("unit-not-reloaded", "service", WARNING, "systemd has read the unit as it is", unit_not_reloaded, _UNIT),
    Check("unit-edited", "service", WARNING, "the unit is as the roles wrote it", unit_edited,
          (*_UNIT, "user-wrong", "unit-not-reloaded")),
    Check("restart-pending", "service", WARNING, "the process runs with what is configured", restart_pending,
          (*_SET, "unit-not-reloaded")),
    Check("unit-disabled", "service", WARNING, "the service starts at boot", unit_disabled, _UNIT),
    Check("password-readable", "settings", WARNING, "only root can read the password", password_readable, _UNIT),
    Check("state-read-only", "ledger", ERROR, "the ledger's directory can be written", state_read_only, _RUNS),
    Check("disk-full", "ledger", ERROR, "the disk has space", disk_full, _UNIT),
    Check("ledger-damaged", "ledger", ERROR, "the ledger is sound", ledger_damaged, _UNIT),
    Check("ledger-locked", "ledger", ERROR, "nobody else locks the ledger", ledger_locked, _UNIT),
    Check("broker-unresolvable", "network", ERROR, "AMQP_HOST can be looked up",
          partial(reached, "broker-unresolvable"), _SET),
    Check("broker-unreachable", "network", ERROR, "a route leads to the broker",
          partial(reached, "broker-unreachable"), _SET),
    Check("broker-filtered", "network", ERROR, "no firewall is in the way", partial(reached, "broker-filtered"),
          _SET),
    Check("broker-refused", "network", ERROR, "RabbitMQ accepts connections", partial(reached, "broker-refused"),
          _SET),
    Check("address-idle", "network", WARNING, "every address of AMQP_HOST works", address_idle, _REACH),
    Check("not-amqp", "network", ERROR, "what answers is RabbitMQ", partial(logged_in, "not-amqp"), _REACH),
    Check("tls-expired", "login", ERROR, "RabbitMQ's certificate is valid", partial(logged_in, "tls-expired"),
          _REACH),
    Check("tls-untrusted", "login", ERROR, "RabbitMQ's certificate is trusted", partial(logged_in, "tls-untrusted"),
          _REACH),
    Check("guest-remote", "login", ERROR, "the user may log in from here", partial(logged_in, "guest-remote"),
          _REACH),
    Check("bad-credentials", "login", ERROR, "user and password are right", partial(logged_in, "bad-credentials"),
          _REACH),
    Check("vhost-missing", "login", ERROR, "the virtual host exists", partial(logged_in, "vhost-missing"), _REACH),
    Check("permission-missing", "login", ERROR, "the user has its permissions", permission_missing, _LOGIN[:-1]),
    Check("clock-skew", "ledger", WARNING, "the clock agrees with the broker's", clock_skew, _LOGIN),
    Check("declared-otherwise", "queues", ERROR, "the queues are declared as everywhere", declared_otherwise, _LOGIN),
    Check("service-stopped", "service", ERROR, "the service is started", service_stopped, _UNIT),
    Check("service-failed", "service", ERROR, "the service has not failed", service_failed, _UNIT, symptom=True),
    Check("crash-loop", "service", ERROR, "the service does not crash", crash_loop, _UNIT, symptom=True),
    Check("service-hung", "service", ERROR, "the process works", service_hung, _UNIT),
    Check("queue-missing", "queues", ERROR, "exchange and queue exist", queue_missing,
          (*_ACTIVE, "declared-otherwise", "service-hung")),
    Check("queue-unbound", "queues", ERROR, "the queue is bound to the exchange", queue_unbound,
          (*_ACTIVE, "declared-otherwise", "queue-missing")),
    Check("broker-alarm", "flow", ERROR, "no alarm blocks publishers", broker_alarm, _LOGIN),
    Check("no-consumer", "flow", ERROR, "somebody consumes", no_consumer,
          (*_ACTIVE, "declared-otherwise", "queue-missing", "service-hung"), symptom=True),
    Check("not-consuming", "flow", ERROR, "this host consumes", not_consuming, _ACTIVE, symptom=True),
    Check("no-progress", "flow", ERROR, "orders are worked off", no_progress,
          (*_ACTIVE, "no-consumer", "service-hung"), symptom=True),
    Check("retry-backlog", "flow", WARNING, "no order waits to be tried again", retry_backlog, _LOGIN),
    Check("dead-letters", "flow", WARNING, "no dead letter waits", dead_letters, _LOGIN),
)  # fmt: skip
