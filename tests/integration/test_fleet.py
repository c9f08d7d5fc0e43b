"""Several hosts at once: one of them goes away in the middle of a play, or fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.integration.conftest import release, until
from tests.lab import engine, image
from tests.lab.ansible import ROOT, playbook
from tests.lab.hosts import Host, Lab, execute
from tests.lab.inventory import copied

pytestmark = pytest.mark.long

NAME, BROKER = "fleet", "fleet-broker"
MEMBERS = ("fleet-dispatch-1", "fleet-dispatch-2", "fleet-dispatch-3")


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    client = engine.connect(ROOT / ".lab")
    yield client
    client.close()


@pytest.fixture(scope="module")
def inventory(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An inventory of a broker and three Dispatch hosts, provisioned."""
    directory = tmp_path_factory.mktemp("fleet")
    members = (Host(name, "dispatch", 22311 + number) for number, name in enumerate(MEMBERS))
    lab = Lab(NAME, directory / ".lab", (Host(BROKER, "rabbitmq", 22310), *members))
    inventory = copied(lab, directory, BROKER)
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
        # The canary builds first; the second build belongs to the rest.
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


def test_a_canary_that_fails_at_the_gate_is_put_back_and_the_others_are_untouched(
    client: docker.DockerClient, inventory: Path, wont_start: Path
) -> None:
    files = "/etc/dispatch /etc/systemd/system/dispatch.service /usr/bin/dispatch"
    state = f"readlink /app/current; systemctl is-active dispatch; find {files} -type f -exec sha256sum {{}} + | sort"
    traces = "systemctl show dispatch -p InvocationID; ls -la --time-style=full-iso /app/releases"

    def seen(question: str) -> list[str]:
        return [execute(client.containers.get(name), "sh", "-c", question)[1] for name in MEMBERS]

    states, untouched = seen(state), seen(traces)
    run = playbook("dispatch", "-e", f"dispatch_artifact={wont_start}", inventory=inventory)
    assert run.code != 0
    assert "broken: it does not start" in run.output
    assert "its settings are back, and healthy" in run.output
    # The inventory lists containers by age, so any of the three may be its first host and the canary.
    tried = [run.recap[name]["failed"] == 1 for name in MEMBERS]
    assert sum(tried) == 1, run.output
    assert [run.recap[name]["changed"] > 0 for name in MEMBERS] == tried
    assert seen(state) == states
    assert all("\nactive\n" in state for state in states)
    # Only the host that tried the release shows any trace.
    assert [now != before for now, before in zip(seen(traces), untouched, strict=True)] == tried


def test_as_many_may_fail_as_the_inventory_says(client: docker.DockerClient, inventory: Path, newer: Path) -> None:
    # One host of the second batch fails before the other one switches, in whatever order the inventory lists them. If
    # no host might fail, the other one would not switch.
    rollout = {"dispatch_artifact": str(newer), "dispatch_serial": [1, 2], "dispatch_max_fail_percentage": 50}
    failing = client.containers.get(MEMBERS[1])
    lock = f"/run/{release(newer)}.build"
    assert execute(failing, "systemd-run", "--unit=holds-the-lock", "flock", lock, "sleep", "infinity")[0] == 0
    run = playbook("dispatch", "-e", json.dumps(rollout), inventory=inventory)
    assert execute(failing, "systemctl", "stop", "holds-the-lock")[0] == 0
    assert run.code != 0
    assert [run.recap[name]["failed"] for name in MEMBERS] == [0, 1, 0], run.output
    live = [execute(client.containers.get(name), "readlink", "/app/current")[1] for name in MEMBERS]
    assert [path.endswith(release(newer)) for path in live] == [True, False, True]
    assert execute(failing, "systemctl", "is-active", "dispatch")[1] == "active"
