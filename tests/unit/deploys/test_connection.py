"""How the second engine reaches hosts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploys.connection import reach
from deploys.desired import Desired, DesiredError


def test_a_host_is_reached_as_the_ssh_arguments_say(desired: Callable[..., Desired], tmp_path: Path) -> None:
    known, configuration, password = tmp_path / "my hosts", tmp_path / "config", "for sudo"
    known.write_text("192.0.2.1 ssh-ed25519 AAAA\n")
    configuration.write_text("Host 192.0.2.1\n  Port 2200\n  ProxyJump me@first,bastion:2222\n  IdentityFile /key\n")
    variables = {
        "ansible_user": "ec2-user",
        "ansible_ssh_common_args": f"-F {configuration} -o 'UserKnownHostsFile=\"{known}\"'",
        "ansible_become_password": password,
    }
    data = reach(desired(**variables), "h1")
    written = Path(data.pop("ssh_config_file")).read_text().splitlines()
    (line,) = [line for line in written if line.startswith("UserKnownHostsFile ")]
    assert known.read_text() in Path(line.partition(" ")[2]).read_text()
    assert "IdentityFile /key" in written
    jump = "ssh -F {configuration} -J me@first -W '[192.0.2.1]:2200' ssh://bastion:2222"
    assert f"ProxyCommand {jump.format(configuration=configuration)}" in written
    assert data == {
        "ssh_hostname": "192.0.2.1",
        "ssh_port": 2200,
        "ssh_user": "ec2-user",
        "ssh_strict_host_key_checking": "yes",
        "_sudo": True,
        "_sudo_password": password,
    }


def test_an_option_that_ssh_does_not_know_is_named(desired: Callable[..., Desired]) -> None:
    with pytest.raises(DesiredError, match=r"h1: .*nosuchoption.* Correct its ssh arguments"):
        reach(desired(ansible_ssh_extra_args="-o NoSuchOption=1"), "h1")


@pytest.mark.parametrize(("become", "sudo"), [(None, True), (False, False), ("no", False), (True, True)])
def test_root_s_own_login_needs_no_sudo(desired: Callable[..., Desired], become: object, sudo: bool) -> None:
    assert reach(desired(ansible_become=become, ansible_user="root"), "h1")["_sudo"] is sudo


@pytest.mark.parametrize("variables", [{"ansible_become_method": "su"}, {"ansible_become_user": "admin"}])
def test_another_way_to_become_root_is_refused(desired: Callable[..., Desired], variables: dict[str, object]) -> None:
    with pytest.raises(DesiredError, match=r"h1: ansible_become_method is .* pyinfra becomes root by sudo alone"):
        reach(desired(**variables), "h1")
