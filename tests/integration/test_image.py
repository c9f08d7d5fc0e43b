"""The roles while an image is made, in a container without systemd, and a host that boots from that image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from docker.models.containers import Container

from tests.integration.conftest import BROKER, TestLab, until
from tests.lab import image
from tests.lab.ansible import playbook
from tests.lab.hosts import Host, Lab, await_boot, execute

pytestmark = pytest.mark.long

NAME, BAKED = "test-image", "roboshop-lab:baked"


@pytest.fixture
def unbooted(lab: TestLab) -> Iterator[Container]:
    """A host's files with nothing running, as a builder of images sees them."""
    container = lab.client.containers.run(
        image.ensure(lab.client), ["sleep", "infinity"], name=NAME, detach=True, network=lab.lab.network
    )
    yield container
    container.remove(force=True, v=True)


def test_an_image_is_complete_and_idle_and_consumes_once_it_boots(
    lab: TestLab, unbooted: Container, tmp_path: Path
) -> None:
    inventory = tmp_path / "hosts.yml"
    variables = {
        "ansible_connection": "community.docker.docker",
        "dispatch_amqp_host": BROKER,
        "dispatch_amqp_password": lab.password,
        "rabbitmq_password": lab.password,
    }
    groups: dict[str, dict[str, dict[str, dict[str, str]]]] = {
        "rabbitmq": {"hosts": {NAME: {}}},
        "dispatch": {"hosts": {NAME: {}}},
    }
    inventory.write_text(yaml.safe_dump({"all": {"vars": variables, "children": groups}}))
    first = playbook("site", inventory=inventory)
    assert first.code == 0, first.output
    second = playbook("site", inventory=inventory)
    assert (second.code, second.changed) == (0, 0), second.output

    assert execute(unbooted, "systemctl", "is-enabled", "dispatch", "rabbitmq-server") == (0, "enabled\nenabled")
    _, processes = execute(unbooted, "ps", "-eo", "args")
    assert "sleep infinity" in processes
    assert "dispatch_app" not in processes
    assert "beam.smp" not in processes

    repository, tag = BAKED.split(":")
    command = lab.client.images.get(image.ensure(lab.client)).attrs["Config"]["Cmd"]
    unbooted.commit(repository, tag, changes=f"CMD {json.dumps(command)}")
    # The settings name the lab's broker, so the host has to be on the lab's network.
    booted = Lab(lab.lab.name, tmp_path / "state", (Host("test-booted", "image", 22305),))
    host = booted.boot(lab.client, BAKED, booted.hosts[0])
    try:
        await_boot(host)
        until(lambda: execute(host, "systemctl", "is-active", "dispatch")[1] == "active", 60)
        with lab.making_room():
            lab.assert_consuming("test-booted")
        assert execute(host, "systemctl", "show", "dispatch", "--property=NRestarts")[1] == "NRestarts=0"
    finally:
        host.remove(force=True, v=True)
        lab.client.images.remove(BAKED, force=True)
