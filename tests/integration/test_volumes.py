"""The home on another volume, by a link or a mount: both engines take it as it is."""

from __future__ import annotations

import pytest

from tests.integration.conftest import DISPATCH, TestLab
from tests.second_engine import deploy

pytestmark = pytest.mark.long

MOVE = "systemctl stop dispatch && mv /app /srv/app && ln -s /srv/app /app && systemctl start dispatch"
MOUNT = "rm /app && mkdir /app && mount --bind /srv/app /app && systemctl restart dispatch"


def assert_settled(lab: TestLab) -> None:
    by_ansible = lab.playbook("dispatch")
    assert (by_ansible.code, by_ansible.changed) == (0, 0), by_ansible.output
    by_pyinfra = deploy(lab.inventory, "--yes")
    assert (by_pyinfra.code, by_pyinfra.changed) == (0, {}), by_pyinfra.output
    assert "Nothing to change" in by_pyinfra.output
    lab.assert_consuming()


def test_a_home_that_is_a_link_or_a_mount_is_settled_and_can_be_removed(lab: TestLab) -> None:
    for volume in (MOVE, MOUNT):
        lab.run(DISPATCH, "sh", "-ec", volume)
        assert_settled(lab)
    lab.run(DISPATCH, "sh", "-ec", "echo >> /app/current/dispatch_app/orders.py")
    assert deploy(lab.inventory, "--yes").changed
    assert_settled(lab)
    removed = lab.playbook("remove", "--limit", DISPATCH)
    assert removed.code == 0, removed.output
    assert lab.run(DISPATCH, "ls", "-A", "/srv/app") == ""
    lab.run(DISPATCH, "sh", "-ec", "umount /app && rmdir /app /srv/app")
    run = lab.playbook("site")
    assert run.code == 0, run.output
