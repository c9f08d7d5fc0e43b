"""Several hosts at once: one of them goes away in the middle of a play."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.integration.conftest import until
from tests.lab import engine, image
from tests.lab.ansible import ROOT, playbook
from tests.lab.hosts import Host, Lab, execute
from tests.lab.inventory import copied

pytestmark = pytest.mark.long

NAME, BROKER = "fleet", "fleet-broker"
MEMBERS = ("fleet-dispatch-1", "fleet-dispatch-2", "fleet-dispatch-3")


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    client = engine.connect(ROOT / ".lab")
    yield client
    client.close()


@pytest.fixture
def inventory(client: docker.DockerClient, tmp_path: Path) -> Iterator[Path]:
    """An inventory of a broker and three Dispatch hosts, provisioned."""
    members = (Host(name, "dispatch", 22311 + number) for number, name in enumerate(MEMBERS))
    lab = Lab(NAME, tmp_path / ".lab", (Host(BROKER, "rabbitmq", 22310), *members))
    inventory = copied(lab, tmp_path, BROKER)
    lab.down(client)
    lab.up(client, image.ensure(client))
    run = playbook("site", inventory=inventory)
    assert run.code == 0, run.output
    yield inventory
    lab.down(client)


def test_the_others_finish_and_the_next_run_completes(
    client: docker.DockerClient, inventory: Path, newer: Path
) -> None:
    change = ("-e", f"dispatch_artifact={newer}")
    gone = client.containers.get(MEMBERS[1])
    builds = 0

    def watch(line: str) -> None:
        nonlocal builds
        builds += "Build | Unpack it" in line
        # The first build is the canary's.
        if builds == 2 and gone.status == "running":
            gone.kill()
            gone.reload()

    run = playbook("dispatch", *change, inventory=inventory, watch=watch)
    assert run.code != 0
    assert [run.recap[name]["unreachable"] for name in MEMBERS] == [0, 1, 0], run.output
    for name in (MEMBERS[0], MEMBERS[2]):
        assert execute(client.containers.get(name), "ls", "/app/current/NOTE")[0] == 0

    gone.start()
    until(lambda: execute(gone, "systemctl", "is-system-running")[1] == "running", 60)
    completing = playbook("dispatch", *change, inventory=inventory)
    assert completing.code == 0, completing.output
    assert completing.recap[MEMBERS[0]]["changed"] == 0
    assert execute(gone, "ls", "/app/current/NOTE")[0] == 0
    assert execute(gone, "systemctl", "is-active", "dispatch")[1] == "active"
