"""Several hosts at once: one of them goes away in the middle of a play."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.integration.conftest import replace, until
from tests.lab import engine, image
from tests.lab.ansible import LAB_INVENTORY, ROOT, Run, playbook
from tests.lab.hosts import LABEL, Host, Lab, execute

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
    inventory = tmp_path / "inventories" / "lab"
    shutil.copytree(LAB_INVENTORY, inventory)
    replace(inventory / "lab.docker.yml", f"get('{LABEL}') == 'lab'", f"get('{LABEL}') == '{NAME}'")
    replace(inventory / "group_vars" / "all" / "dispatch.yml", "host: broker", f"host: {BROKER}")
    lab.down(client)
    lab.up(client, image.ensure(client))
    run = playbook("site", inventory=inventory)
    assert run.code == 0, run.output
    yield inventory
    lab.down(client)


def test_the_others_finish_and_the_next_run_completes(
    client: docker.DockerClient, inventory: Path, tmp_path: Path
) -> None:
    newer = tmp_path / "newer.zip"
    shutil.copy(ROOT / "dist" / "dispatch.zip", newer)
    with zipfile.ZipFile(newer, "a") as artifact:
        artifact.writestr("NOTE", "newer")
    change = ("-e", f"dispatch_artifact={newer}")
    gone = client.containers.get(MEMBERS[1])
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), "playbooks/dispatch.yml", *change]
    lines, builds = [], 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as play:
        assert play.stdout is not None
        for line in play.stdout:
            lines.append(line)
            builds += "Build | Unpack it" in line
            # The first build is the canary's.
            if builds == 2 and gone.status == "running":
                gone.kill()
                gone.reload()
    run = Run(play.returncode, "".join(lines))
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
