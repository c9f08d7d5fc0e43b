"""What a host does to the service's start is seen by the check, before anything live changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.integration.conftest import DISPATCH, TestLab
from tests.lab.ansible import Run

pytestmark = pytest.mark.long

# As distrobuilder's images for LXC write it at each boot.
LXC = r"[Service]\nProtectProc=default\nProtectControlGroups=no\nNoNewPrivileges=no\nLoadCredential=\n"
WRITE = "mkdir -p {0} && printf '{2}' > {0}/{1} && systemctl daemon-reload"


@contextlib.contextmanager
def drop_in(lab: TestLab, directory: str, name: str) -> Iterator[None]:
    """Have a host with a drop-in that takes all credentials away."""
    lab.run(DISPATCH, "sh", "-ec", WRITE.format(directory, name, LXC))
    try:
        yield
    finally:
        lab.run(DISPATCH, "sh", "-ec", f"rm {directory}/{name} && systemctl daemon-reload")


def change(lab: TestLab, days: int) -> Run:
    return lab.playbook("dispatch", "-e", f'{{"dispatch_environment": {{"DISPATCH_RETENTION_DAYS": {days}}}}}')


def invocation(lab: TestLab) -> str:
    return lab.run(DISPATCH, "systemctl", "show", "dispatch", "--property=InvocationID")


def test_an_image_for_lxc_leaves_the_service_its_credentials(lab: TestLab) -> None:
    with drop_in(lab, "/run/systemd/system/service.d", "zzz-lxc-service.conf"):
        run = change(lab, 41)
        assert run.code == 0, run.output
        lab.run(DISPATCH, "systemctl", "restart", "dispatch")
        assert "can be reached" in lab.run(DISPATCH, "dispatch", "check")
        lab.assert_consuming()
    assert lab.playbook("dispatch").code == 0


def test_a_drop_in_that_takes_the_credentials_for_good_is_named(lab: TestLab) -> None:
    before = invocation(lab)
    with drop_in(lab, "/etc/systemd/system/dispatch.service.d", "zzzzz.conf"):
        run = change(lab, 42)
    assert run.code != 0
    assert "nothing that is live has changed" in run.output
    assert "/etc/systemd/system/dispatch.service.d/zzzzz.conf takes all credentials from the service" in run.output
    assert invocation(lab) == before


def test_a_state_directory_that_is_a_link_is_refused_with_a_remedy_that_works(lab: TestLab) -> None:
    link = "mv /var/lib/dispatch /var/lib/volume && ln -s /var/lib/volume /var/lib/dispatch"
    back = "umount /var/lib/dispatch && rmdir /var/lib/dispatch && mv /var/lib/volume /var/lib/dispatch"
    before = invocation(lab)
    lab.run(DISPATCH, "sh", "-ec", link)
    run = change(lab, 43)
    assert run.code != 0
    assert "nothing that is live has changed" in run.output
    assert "/var/lib/dispatch is a symbolic link" in run.output
    assert invocation(lab) == before
    remedy = run.output.partition("Mount the directory it leads to in its place (")[2].partition(")")[0]
    lab.run(DISPATCH, "sh", "-ec", remedy)
    mended = change(lab, 43)
    assert mended.code == 0, mended.output
    lab.assert_consuming()
    lab.run(DISPATCH, "sh", "-ec", f"systemctl stop dispatch; sed -i '/volume/d' /etc/fstab; {back}")
    assert lab.playbook("dispatch").code == 0


def test_a_start_leaves_no_warning_in_the_journal(lab: TestLab) -> None:
    cursor = lab.run(DISPATCH, "sh", "-c", "journalctl -n 0 --show-cursor | sed -n 's/^-- cursor: //p'")
    assert change(lab, 44).code == 0
    warnings = ("journalctl", f"--after-cursor={cursor}", "--priority=warning", "--output=cat", "_PID=1")
    assert lab.run(DISPATCH, *warnings) in ("", "-- No entries --")
    # Of a kernel that can't filter by address, systemd complains once a boot.
    assert "configures an IP firewall" not in lab.run(DISPATCH, "journalctl", "--boot", "--output=cat", "_PID=1")
    assert lab.playbook("dispatch").code == 0


def test_the_keys_of_an_instance_are_out_of_the_running_service_s_reach(lab: TestLab) -> None:
    denied = lab.run(DISPATCH, "systemctl", "show", "dispatch", "--property=IPAddressDeny", "--value")
    assert set(denied.split()) == {"169.254.169.254/32", "fd00:ec2::254/128"}
