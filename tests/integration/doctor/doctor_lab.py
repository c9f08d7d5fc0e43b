"""Hosts to make ill: a broker with a plain and a TLS port, a Dispatch host for each port, and a host set up by hand."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pika
from docker.models.containers import Container

from tests.integration.conftest import order, unit_by_hand, until
from tests.lab import engine, image
from tests.lab.ansible import ROOT, Run, playbook
from tests.lab.hosts import Host, Lab, execute, put
from tests.lab.inventory import copied

BROKER, PLAIN, TLS, MANUAL = "doctor-broker", "doctor-1", "doctor-2", "doctor-manual"
SUBNET, UNUSED_ADDRESS = "172.31.224.0/24", "172.31.224.250"
AMQP_PORT, MANAGEMENT_PORT = 22551, 22552
DOCTOR = ROOT / "dist" / "dispatch.zip"


@dataclass(frozen=True)
class Clinic:
    """The hosts, their inventory, and what tests do with them."""

    client: docker.DockerClient
    lab: Lab
    inventory: Path
    password: str

    def host(self, name: str) -> Container:
        return self.client.containers.get(name)

    def run(self, name: str, script: str) -> str:
        """Run a shell script on a host as root; return its output, without white space around it."""
        code, output = execute(self.host(name), "bash", "-c", script)
        assert code == 0, f"{script} on {name}: {output}"
        return output

    def playbook(self, name: str, *arguments: str) -> Run:
        return playbook(name, *arguments, inventory=self.inventory)

    def examine(self, name: str, before: str = "", python: str = "python3") -> dict[str, Any]:
        """Run the artifact's doctor on a host, with the platform's Python, and return its report."""
        code, output = execute(self.host(name), "bash", "-c", f"{before} {python} /root/dispatch.zip doctor --json")
        report = json.loads(output)
        assert report["exit_code"] == code
        return dict(report)

    def first(self, name: str) -> str:
        """The id of the doctor's first finding, or "healthy"."""
        return next((str(finding["id"]) for finding in self.examine(name)["findings"]), "healthy")

    @property
    def taking_over(self) -> Path:
        """An inventory in which the playbooks also provision the host that was set up by hand."""
        file = self.inventory.parent / "taking_over.yml"
        file.write_text(f"dispatch: {{hosts: {{{MANUAL}: {{}}}}}}\n")
        return file

    def apply(self, name: str, fix: dict[str, str]) -> str:
        """Run a fix as it was printed, on the machine that it names."""
        if fix["where"] == "host":
            return self.run(name, fix["command"])
        if fix["where"] == "broker" and fix["command"].startswith("iptables"):
            return self.in_network_of(BROKER, fix["command"])
        if fix["where"] == "broker":
            return self.run(BROKER, fix["command"])
        # The fixes name no inventory; playbooks/doctor.yml adds it for its user.
        inventories = f"-i {self.inventory}"
        if name == MANUAL:
            inventories += f" -i {self.taking_over}"
        command = re.sub(r"\b(ansible|ansible-playbook) (?=playbooks|\{)", rf"\1 {inventories} ", fix["command"])
        done = subprocess.run(
            ["bash", "-c", command.replace("{host}", name)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def in_network_of(self, name: str, command: str) -> str:
        """Run a command of this machine in a host's network: the host itself may not set up a firewall."""
        pid = self.host(name).attrs["State"]["Pid"]
        done = subprocess.run(["nsenter", "-t", str(pid), "-n", "sh", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def connected(self, user: str = "roboshop") -> Iterator[Any]:
        """A channel of the broker, from outside."""
        credentials = pika.PlainCredentials(user, self.password)
        connection = pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", AMQP_PORT, credentials=credentials, heartbeat=0)
        )
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def publish(self, *bodies: bytes, count: int = 1) -> None:
        """Publish bodies, or as many orders as asked for, as payment does."""
        with self.connected() as channel:
            for body in bodies or (json.dumps(order()).encode() for _ in range(count)):
                channel.basic_publish("robot-shop", "orders", body, pika.BasicProperties(headers={}))

    def provision(self) -> None:
        """Make every host healthy: by the playbook, and the one set up by hand by hand."""
        run = self.playbook("site")
        assert run.code == 0, run.output
        for host in (PLAIN, TLS, MANUAL):
            put(self.host(host), "/root", {DOCTOR.name: DOCTOR.read_bytes()})
        self.set_up_by_hand()

    def set_up_by_hand(self) -> None:
        """As the runbook does it: /app, the unit with Environment= in it, and a program that consumes."""
        put(self.host(MANUAL), "/root", {"dispatch.service": unit_by_hand(BROKER, self.password).encode()})
        self.run(
            MANUAL,
            r"""set -e; id roboshop 2>/dev/null || useradd roboshop
            mkdir -p /app /var/lib/manual && chown roboshop /var/lib/manual && cd /app
            python3 -m zipfile -e /root/dispatch.zip . && cp /root/dispatch.service /etc/systemd/system/
            printf '#!/bin/sh\nSTATE_DIRECTORY=/var/lib/manual exec python3 -B /app run\n' > dispatch
            chmod -R a+rX /app && chmod a+x dispatch
            systemctl daemon-reload && systemctl enable --quiet dispatch && systemctl restart dispatch""",
        )


def boot(directory: Path) -> Clinic:
    """Boot and provision the hosts. TLS is on at the broker, with certificates made in the inventory."""
    lab = Lab(
        "doctor",
        directory / ".lab",
        (
            Host(BROKER, "rabbitmq", 22500, ((5672, AMQP_PORT), (15672, MANAGEMENT_PORT))),
            Host(PLAIN, "dispatch", 22501),
            Host(TLS, "dispatch", 22502),
            Host(MANUAL, "manual", 22503),
        ),
        SUBNET,
    )
    client = engine.connect(ROOT / ".lab")
    lab.up(client, image.ensure(client))
    inventory = directory / "inventories" / "lab"
    if not inventory.exists():
        copied(lab, directory, BROKER)
        variables = inventory / "group_vars" / "all" / "dispatch.yml"
        certificates = directory / "tls"
        tls = f"\nrabbitmq_tls: true\nrabbitmq_tls_directory: {certificates}\n"
        variables.write_text(variables.read_text() + tls)
        (inventory / "host_vars").mkdir()
        trust = (
            f"dispatch_amqp_tls: true\ndispatch_amqp_tls_ca: \"{{{{ lookup('file', '{certificates}/ca.pem') }}}}\"\n"
        )
        (inventory / "host_vars" / f"{TLS}.yml").write_text(trust)
        (lab.state / "amqp_password").write_text(uuid.uuid4().hex + "\n")
    clinic = Clinic(client, lab, inventory, (lab.state / "amqp_password").read_text().strip())
    clinic.provision()
    for host in (PLAIN, TLS):
        until(lambda host=host: clinic.first(host) == "healthy", 30)  # type: ignore[misc]
    return clinic
