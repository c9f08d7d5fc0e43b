"""Changes that are cut short, collide or find no room: the live service keeps consuming, and the next run finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import DISPATCH, FRESH, TestLab, release, until
from tests.lab.ansible import ROOT
from tests.lab.hosts import execute

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def put_back(lab: TestLab) -> Iterator[None]:
    """Every test starts from, and leaves, the release and the settings of the inventory."""
    yield
    run = lab.playbook("dispatch")
    assert run.code == 0, run.output


def live(lab: TestLab) -> str:
    return lab.run(DISPATCH, "readlink", "/app/current")


def invocation(lab: TestLab) -> str:
    return lab.run(DISPATCH, "systemctl", "show", "dispatch", "-p", "InvocationID")


@pytest.mark.parametrize(
    ("task", "present"),
    [
        ("Build | Bring the artifact", "/app"),
        ("Build | Bring the artifact", "/app/releases/{release}/venv"),
        ("Build | Unpack it", "/app"),
        ("Runbook steps 5 and 6", "/etc/dispatch/previous"),
        ("Check the new state", "/app"),
    ],
)
def test_a_play_that_is_killed_leaves_dispatch_consuming_and_the_next_one_completes(
    lab: TestLab, newer: Path, task: str, present: str
) -> None:
    # A task is printed after it has ended, so the next one is under way; the file `present` shows how far it is.
    present = present.format(release=release(newer))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(lab.inventory), "playbooks/dispatch.yml"]
    command += ["-e", f"dispatch_artifact={newer}"]
    # A process group of its own lets one signal end the play's workers, too.
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as play:
        assert play.stdout is not None
        for line in play.stdout:
            if task in line:
                until(lambda: execute(lab.host(DISPATCH), "ls", present)[0] == 0)
                os.killpg(play.pid, signal.SIGKILL)
                break
        else:
            pytest.fail(f"the play has no task {task!r}")
    lab.assert_consuming()

    # The module that was running on the host ends by itself.
    for lock in ("/run/dispatch-activate.lock", f"/run/{release(newer)}.build"):
        lab.run(DISPATCH, "flock", "--timeout=30", lock, "true")
    run = lab.playbook("dispatch", "-e", f"dispatch_artifact={newer}")
    assert run.code == 0, run.output
    assert lab.run(DISPATCH, "ls", "/app/current/NOTE")
    assert lab.run(DISPATCH, "ls", "/etc/dispatch").split() == ["credentials", "environment"]
    again = lab.playbook("dispatch", "-e", f"dispatch_artifact={newer}")
    assert again.changed == 0, again.output


def test_a_host_that_goes_away_completes_when_it_is_back(lab: TestLab, newer: Path) -> None:
    def watch(line: str) -> None:
        if "Runbook steps 5 and 6" in line:
            lab.host(DISPATCH).kill()

    interrupted = lab.playbook("dispatch", "-e", f"dispatch_artifact={newer}", watch=watch)
    assert interrupted.recap[DISPATCH]["unreachable"] == 1, interrupted.output
    lab.host(DISPATCH).start()
    until(lambda: execute(lab.host(DISPATCH), "systemctl", "is-system-running")[1] == "running", 60)
    lab.assert_consuming()

    run = lab.playbook("dispatch", "-e", f"dispatch_artifact={newer}")
    assert run.code == 0, run.output
    assert lab.run(DISPATCH, "ls", "/app/current/NOTE")


def test_a_reboot_within_the_gate_ends_in_the_release_that_was_proven(lab: TestLab, newer: Path) -> None:
    before, host = live(lab), lab.host(DISPATCH)
    # The saved state stands and the new release is live: from now on, for three seconds or more, it is being proven.
    unproven = f"test -d /etc/dispatch/previous && test $(readlink /app/current) = /app/releases/{release(newer)}"

    def watch(line: str) -> None:
        if "Runbook steps 5 and 6" in line:
            until(lambda: execute(host, "sh", "-c", unproven)[0] == 0, 30)
            host.kill()

    interrupted = lab.playbook("dispatch", "-e", f"dispatch_artifact={newer}", watch=watch)
    assert interrupted.recap[DISPATCH]["unreachable"] == 1, interrupted.output
    host.start()
    until(lambda: execute(host, "systemctl", "is-system-running")[1] == "running", 60)
    assert live(lab) == before
    assert lab.run(DISPATCH, "ls", "/etc/dispatch").split() == ["credentials", "environment"]
    assert lab.run(DISPATCH, "sh", "-c", "ls -d /etc/systemd/system/*undo* 2>&1 || echo none").endswith("none")
    started = "systemctl show dispatch --property=NRestarts,ActiveState,NeedDaemonReload"
    assert lab.run(DISPATCH, "sh", "-c", started).split() == [
        "NRestarts=0",
        "ActiveState=active",
        "NeedDaemonReload=no",
    ]
    lab.assert_consuming()

    settled = lab.playbook("dispatch")
    assert (settled.code, settled.changed) == (0, 0), settled.output
    run = lab.playbook("dispatch", "-e", f"dispatch_artifact={newer}")
    assert run.code == 0, run.output
    assert lab.run(DISPATCH, "ls", "/app/current/NOTE")


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("/run/dispatch-activate.lock", "another play is switching dispatch on this host"),
        ("/run/{release}.build", "another play is building /app/releases/{release}"),
    ],
)
def test_two_plays_at_once_do_not_meet(lab: TestLab, newer: Path, lock: str, said: str) -> None:
    before = live(lab)
    held = lock.format(release=release(newer))
    lab.run(DISPATCH, "systemd-run", "--unit=holds-the-lock", "flock", held, "sleep", "infinity")
    run = lab.playbook("dispatch", "-e", f"dispatch_artifact={newer}")
    lab.run(DISPATCH, "systemctl", "stop", "holds-the-lock")
    assert run.code != 0
    assert said.format(release=release(newer)) in run.output
    assert live(lab) == before
    lab.assert_consuming()


def test_the_live_release_under_another_name_restarts_nothing(lab: TestLab, tmp_path: Path) -> None:
    same = tmp_path / "another-name.zip"
    same.write_bytes((ROOT / "dist" / "dispatch.zip").read_bytes())
    before = invocation(lab)
    run = lab.playbook("dispatch", "-e", f"dispatch_artifact={same}")
    assert run.changed == 0, run.output
    assert invocation(lab) == before


def test_a_disk_too_full_for_a_release_changes_nothing(lab: TestLab, newer: Path) -> None:
    before = invocation(lab)
    shrink = """
        cp -a /app/releases /var/tmp/releases
        mount -t tmpfs -o size=$(du -sk /app/releases | awk '{print $1 + 4096}')k tmpfs /app/releases
        cp -a /var/tmp/releases/. /app/releases/ && rm -r /var/tmp/releases
    """
    lab.run(DISPATCH, "sh", "-ec", shrink)
    try:
        run = lab.playbook("dispatch", "-e", f"dispatch_artifact={newer}")
        assert run.code != 0
        assert "the disk is full" in run.output, run.output
        assert invocation(lab) == before
        lab.assert_consuming()
    finally:
        lab.run(DISPATCH, "umount", "--lazy", "/app/releases")


def test_a_failed_canary_leaves_the_rest_of_the_fleet_untouched(lab: TestLab, tmp_path: Path) -> None:
    fleet = lab.inventory / "zz-fleet.yml"
    group = {"hosts": {FRESH: {}}, "vars": {"dispatch_serial": [1, "50%"]}}
    fleet.write_text(json.dumps({"all": {"children": {"dispatch": group}}}))
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(broken, "w") as artifact:
        artifact.writestr("requirements.txt", "no-such-package==1\n")
        artifact.writestr("wheels/", "")
    try:
        run = lab.playbook("dispatch", "-e", f"dispatch_artifact={broken}")
    finally:
        fleet.unlink()
    assert run.code != 0
    assert run.recap[DISPATCH]["failed"] == 1
    assert run.recap[FRESH]["failed"] == 0
    assert run.recap[FRESH]["changed"] == 0
    assert lab.run(FRESH, "sh", "-c", "test -e /app || echo untouched") == "untouched"
    lab.assert_consuming()
