"""Measures first runs on fresh hosts, runs that have nothing to change, and runs that change one variable.

Every contender gets new hosts, and no connection left open by an earlier run. Contenders are interleaved, so that other
work on this machine slows all of them alike; the table shows medians. Controller CPU is the user and system time of the
command and all it has started, OpenSSH's masters included, without that of the hosts, which share this machine.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import docker

from tests.benchmarks.results import Results
from tests.integration import original
from tests.lab import LabError, engine, image
from tests.lab.ansible import ROOT, playbook
from tests.lab.hosts import Host, Lab, execute
from tests.lab.inventory import listed
from tests.second_engine import PYINFRA

HERE = Path(__file__).parent
ARTIFACT = ROOT / "dist" / "dispatch.zip"
BROKERS = ("provision-broker", "provision-broker-2")
SUBNET = "172.31.223.0/24"
PHASES = ("first run", "no change", "new RabbitMQ")
SETTLED = ("systemctl", "is-active", "--quiet", "dispatch")
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@dataclass(frozen=True)
class Figure:
    """One run: wall time and the controller's CPU time, in seconds."""

    wall: float
    cpu: float


class Bench:
    """Brokers, and Dispatch hosts, which are made anew for every contender."""

    def __init__(self, client: docker.DockerClient, directory: Path, sizes: list[int]) -> None:
        self.client = client
        self.directory = directory
        self.password = uuid.uuid4().hex
        # Contenders that use the distribution's pip get an artifact without the pip that this project's roles use.
        self.plain = directory / "plain.zip"
        with zipfile.ZipFile(ARTIFACT) as artifact, zipfile.ZipFile(self.plain, "w") as plain:
            for entry in artifact.infolist():
                if not entry.filename.startswith("installer/"):
                    plain.writestr(entry, artifact.read(entry))
        self.brokers = tuple(Host(name, "rabbitmq", 22400 + n) for n, name in enumerate(BROKERS))
        self.hosts = tuple(Host(f"provision-{n}", "dispatch", 22402 + n) for n in range(max(sizes)))
        self.tag = image.ensure(client)

    def lab(self, size: int) -> Lab:
        return Lab("provision", self.directory / "lab", (*self.brokers, *self.hosts[:size]), SUBNET)

    def renew(self, size: int) -> None:
        """Replace all Dispatch hosts with `size` new ones, whose apt index is up to date."""
        with redirect_stdout(sys.stderr):
            self.lab(0).up(self.client, self.tag)
            self.lab(size).up(self.client, self.tag)
        for host in self.hosts[:size]:
            code, output = execute(self.client.containers.get(host.name), "apt-get", "update", "-qq")
            if code:
                raise LabError(f"apt's index on {host.name} could not be refreshed:\n{output}")

    def inventory(self, size: int, broker: str, artifact: Path = ARTIFACT) -> Path:
        variables: dict[str, object] = {
            "rabbitmq_cluster": False,
            "dispatch_amqp_host": broker,
            "dispatch_amqp_password": self.password,
            "dispatch_artifact": str(artifact),
            "rabbitmq_password": self.password,
        }
        return listed(self.lab(size), self.directory / "hosts.yml", variables)

    def command(self, contender: str, size: int, broker: str) -> tuple[list[str], dict[str, str]]:
        """A contender's command, and the variables it adds to the environment."""
        artifact = {"course": self.plain, "original": self.directory / "original.zip"}.get(contender, ARTIFACT)
        inventory = str(self.inventory(size, broker, artifact))
        ansible = [sys.executable, "-m", "ansible", "playbook", "-i", inventory]
        if contender == "runbook":
            state = self.directory / "lab"
            ssh = f"ssh -i {state}/id_ed25519 -o IdentitiesOnly=yes -o UserKnownHostsFile={state}/known_hosts"
            ports = [str(host.ssh_port) for host in self.hosts[:size]]
            return ["bash", str(HERE / "runbook.sh"), broker, self.password, str(self.plain), ssh, "--", *ports], {}
        if contender == "course":
            # An empty file gives Ansible's defaults; without one, it would read this project's ansible.cfg.
            (self.directory / "ansible.cfg").touch()
            return [*ansible, str(HERE / "course.yml")], {"ANSIBLE_CONFIG": str(self.directory / "ansible.cfg")}
        if contender in ("ansible", "original"):
            return [*ansible, "playbooks/dispatch.yml"], {}
        return [PYINFRA, "--yes", "deploys/inventory.py", "deploys/dispatch.py"], {"ANSIBLE_INVENTORY": inventory}

    def measure(self, contender: str, size: int, broker: str) -> Figure:
        """Run a contender once. Raises LabError with its output if it fails or does not do its job."""
        command, environment = self.command(contender, size, broker)
        with tempfile.TemporaryDirectory(prefix="cp-") as control:
            environment = {**os.environ, **environment, "ANSIBLE_SSH_CONTROL_PATH_DIR": control}
            before, started = _children(), time.monotonic()
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
            wall = time.monotonic() - started
            _reap()
        figure = Figure(wall, _children() - before)
        if done.returncode:
            raise LabError(f"{contender} failed:\n{done.stdout}\n{done.stderr}")
        for host in self.hosts[:size]:
            files = ("/etc/dispatch/environment", "/etc/systemd/system/dispatch.service")
            container = self.client.containers.get(host.name)
            _, settings = execute(container, "cat", *files)
            if not {f'AMQP_HOST="{broker}"', f"Environment=AMQP_HOST={broker}"} & set(settings.splitlines()):
                raise LabError(f"{contender} has not pointed {host.name} at {broker}:\n{settings}")
            if execute(container, *SETTLED)[0]:
                raise LabError(f"{contender} has left Dispatch down on {host.name}")
        return figure


CONTENDERS = {
    "runbook": "(a) the runbook in bash",
    "course": "(b) a course-style role",
    "ansible": "(c) this project, Ansible",
    "pyinfra": "(d) this project, pyinfra",
    "original": "(e) this project, Ansible, a program in Go built on each host",
}
DEFAULT = ["runbook", "course", "ansible", "pyinfra"]  # they do the same job
Figures = dict[tuple[int, str, str], list[Figure]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.provision", description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 4, 12], help="how many hosts (default: 1 4 12)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=DEFAULT, metavar="NAME",
                        help=f"of {', '.join(CONTENDERS)} (default: {' '.join(DEFAULT)})")  # fmt: skip
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    figures: Figures = {}
    failed = False
    results = Results("provision", {"hosts": arguments.hosts})
    with _bench(arguments.hosts) as bench:
        if "original" in arguments.contenders:
            original.source(bench.directory / "original.zip")
        for repeat in range(arguments.repeats):
            for size in arguments.hosts:
                for contender in arguments.contenders:
                    for phase, told in phases(bench, contender, size, figures, results):
                        failed |= not isinstance(told, Figure)
                        said = f"{told.wall:.2f} s" if isinstance(told, Figure) else f"failed: {told}"
                        print(f"# {repeat + 1} {size} {phase}, {contender}: {said}", file=sys.stderr)
    show(figures, arguments.contenders)
    print(f"# each run's figures: {results.path}", file=sys.stderr)
    return int(failed)


def phases(
    bench: Bench, contender: str, size: int, figures: Figures, results: Results
) -> Iterator[tuple[str, Figure | LabError]]:
    """Have a contender make its runs on new hosts, and keep their figures; yield each, up to one that fails."""
    phase = PHASES[0]
    try:
        bench.renew(size)
        for phase, broker in zip(PHASES, (BROKERS[0], BROKERS[0], BROKERS[1]), strict=True):
            figure = bench.measure(contender, size, broker)
            figures.setdefault((size, phase, contender), []).append(figure)
            results.add(f"{size} hosts, {phase}, {contender}", {"wall s": figure.wall, "cpu s": figure.cpu})
            yield phase, figure
    except LabError as error:  # the next runs would build on this one; those of other contenders don't
        results.fail(f"{size} hosts, {phase}, {contender}", str(error))
        yield phase, error


def show(figures: Figures, contenders: list[str]) -> None:
    """Print the medians as a table, with each contender's wall time as a share of the course-style role's."""
    print("| hosts | run | " + " | ".join(CONTENDERS[name] for name in contenders) + " |")
    print("| ---: | --- | " + " | ".join("---:" for _ in contenders) + " |")
    for size, phase in sorted(
        {(size, phase) for size, phase, _ in figures}, key=lambda key: (key[0], PHASES.index(key[1]))
    ):
        done = [name for name in contenders if (size, phase, name) in figures]
        walls = {name: statistics.median(one.wall for one in figures[size, phase, name]) for name in done}
        cells = []
        for name in contenders:
            if name not in walls:
                cells.append("failed")
                continue
            cpu = statistics.median(one.cpu for one in figures[size, phase, name])
            share = f", {walls[name] / walls['course']:.2f} of (b)" if "course" in walls else ""
            cells.append(f"{walls[name]:.1f} s, {cpu:.1f} s CPU{share}")
        print(f"| {size} | {phase} | " + " | ".join(cells) + " |")


@contextmanager
def _bench(sizes: list[int]) -> Iterator[Bench]:
    client = engine.connect(ROOT / ".lab")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        bench = Bench(client, Path(directory), sizes)
        try:
            bench.renew(0)
            run = playbook("rabbitmq", inventory=bench.inventory(0, BROKERS[0]))
            if run.code:
                raise LabError(f"the brokers could not be provisioned:\n{run.output}")
            yield bench
        finally:
            bench.lab(0).down(client)
            client.close()


def _children() -> float:
    """CPU time, user and system, in seconds, of the processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reap() -> None:
    """End the OpenSSH masters that a run has left in the background, and wait for them."""
    tasks = Path("/proc/self/task")
    while children := [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]:
        for pid in children:
            os.kill(int(pid), signal.SIGTERM)
            os.waitpid(int(pid), 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        print(f"bench-provision: {error}", file=sys.stderr)
        sys.exit(1)
