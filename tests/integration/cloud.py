"""An account of AWS in moto's server on loopback, which invents its instances: nothing connects to them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3
from moto.backends import get_backend
from moto.server import ThreadedMotoServer

from tests.lab.ansible import ROOT

INVENTORY = ROOT / "inventories" / "ec2"
IMAGE = "ami-12c6146b"  # one of those moto knows
REGION = "eu-central-1"


class Cloud:
    """An account with nothing in it, and the commands of a user who has access to it."""

    def __init__(self, endpoint: str) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            # boto3 must look nowhere but in a test's variables for credentials.
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "ANSIBLE_FORCE_COLOR": "0",
        }
        self.session: Any = boto3.Session("testing", "testing", region_name=REGION)  # moto takes any key
        self.ec2 = self.session.client("ec2", endpoint_url=endpoint)

    def client(self, service: str) -> Any:
        """A client of another of AWS's services."""
        return self.session.client(service, endpoint_url=self.environment["AWS_ENDPOINT_URL"])

    def instance(self, role: str, environment: str) -> tuple[str, str]:
        """Start an instance; return its id and its private address."""
        tags = {"Project": "roboshop", "Role": role, "Environment": environment, "Name": f"{role}-{environment}"}
        answer = self.ec2.run_instances(
            ImageId=IMAGE,
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            ],
        )
        instance = answer["Instances"][0]
        return instance["InstanceId"], instance["PrivateIpAddress"]

    def ansible(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ansible", command, "-i", str(INVENTORY), *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
        )

    def variables(self, host: str, *more: str) -> dict[str, Any]:
        """The variables by which a host is reached and reaches RabbitMQ."""
        return {"msg": self.resolved(host, "[dispatch_amqp_host, ansible_host]", *more)}

    def resolved(self, host: str, expression: str, *more: str) -> Any:
        """What an expression comes to on a host, resolved by a play as the roles would have it."""
        done = self.ansible("adhoc", host, "-m", "debug", "-a", f"msg={{{{ {expression} }}}}", "-o", *more)
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"=> (\{.*\})", done.stdout, re.DOTALL)
        assert found, done.stdout
        return json.loads(found.group(1))["msg"]


@contextlib.contextmanager
def account() -> Iterator[Cloud]:
    """An account with nothing in it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    for service in ("ec2", "ssm", "secretsmanager"):  # moto keeps what the test before has left
        for backend in get_backend(service).values():
            backend[REGION].reset()
    host, port = server.get_host_and_port()
    try:
        yield Cloud(f"http://{host}:{port}")
    finally:
        server.stop()
