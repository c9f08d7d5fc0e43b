"""An instance that provisions itself: cloud-init, on a real boot, with the user data of ``inventories/ec2``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.models.containers import Container

from tests.integration.conftest import BROKER, TestLab, until
from tests.lab import image
from tests.lab.ansible import ROOT
from tests.lab.hosts import Host, Lab, await_boot, execute, put

pytestmark = pytest.mark.long

USER_DATA = ROOT / "inventories" / "ec2" / "user-data.txt"
REPOSITORY = "/srv/dispatch.git"
# On EC2 the instance's role lets it read the password. The test has no account, so this stands in for the AWS CLI.
AWS = """#!/bin/sh
case "$*" in
  "ssm get-parameter --name /roboshop/dispatch/amqp_password --with-decryption --query Parameter.Value --output text")
    cat /root/parameter ;;
  *) echo "no such parameter: $*" >&2; exit 254 ;;
esac
"""


@pytest.fixture
def instance(lab: TestLab, tmp_path: Path) -> Iterator[Container]:
    """A host with cloud-init and this repository as last committed; it has not booted with either yet."""
    own = Lab(lab.lab.name, tmp_path, (Host("test-instance", "instance", 22306),))
    container = own.boot(lab.client, image.ensure(lab.client), own.hosts[0])
    await_boot(container)
    bundle = tmp_path / "dispatch.bundle"
    subprocess.run(["git", "bundle", "create", "--quiet", str(bundle), "HEAD"], cwd=ROOT, check=True)
    put(container, "/root", {"parameter": lab.password.encode(), "aws": AWS.encode(), "bundle": bundle.read_bytes()})
    run(container, "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq cloud-init git")
    run(container, "install -m 0755 /root/aws /usr/local/bin/aws")
    run(
        container, f"git clone --quiet --bare /root/bundle {REPOSITORY} && git -C {REPOSITORY} branch --force main HEAD"
    )
    # A cloud's image has the locale that cloud-init sets by default; this minimal one does not.
    put(container, "/etc/cloud/cloud.cfg.d", {"99-locale.cfg": b"locale: C.UTF-8\n"})
    # Behind a TLS proxy pip needs the system's certificate authorities; by default it uses its own.
    run(container, "printf '[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n' > /etc/pip.conf")
    yield container
    container.remove(force=True, v=True)


def run(container: Container, script: str) -> str:
    code, output = execute(container, "sh", "-c", script)
    assert code == 0, output
    return output


def test_an_instance_provisions_itself(lab: TestLab, instance: Container) -> None:
    user_data = USER_DATA.read_text()
    for old, new in {
        "10.0.1.20": BROKER,
        "https://git.example.com/roboshop/dispatch.git": REPOSITORY,
        "0" * 40: run(instance, f"git -C {REPOSITORY} rev-parse main").strip(),
        "[git, python3.11]": "[git, python3-venv]",
        "/usr/bin/python3.11": "/usr/bin/python3",
    }.items():
        assert user_data.count(old) == 1
        user_data = user_data.replace(old, new)
    run(instance, "mkdir -p /var/lib/cloud/seed/nocloud")
    seed = {"user-data": user_data.encode(), "meta-data": b"instance-id: i-1\n"}
    put(instance, "/var/lib/cloud/seed/nocloud", seed)
    instance.restart()
    until(lambda: execute(instance, "systemctl", "is-active", "cloud-final")[1] in ("active", "failed"), 300)
    log = execute(instance, "cat", "/var/log/cloud-init-output.log")[1]
    assert "failed=0" in log, log
    assert lab.password not in log
    errors = json.loads(run(instance, "cat /run/cloud-init/result.json"))["v1"]["errors"]
    assert errors == [], errors

    with lab.making_room():
        lab.assert_consuming(str(instance.name))
    again = run(instance, "/usr/local/sbin/provision-dispatch")
    assert "changed=0" in again.rpartition("PLAY RECAP")[2], again
