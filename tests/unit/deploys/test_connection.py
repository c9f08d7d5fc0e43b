"""How the second engine reaches hosts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploys.connection import reach
from deploys.desired import Desired, DesiredError

SECRET = "not-to-be-seen"  # noqa: S105 - that of no login


def test_a_host_is_reached_as_the_ssh_arguments_say(desired: Callable[..., Desired], tmp_path: Path) -> None:
    known, configuration, key = tmp_path / "my hosts", tmp_path / "config", tmp_path / "key"
    key.touch()
    known.write_text("192.0.2.1 ssh-ed25519 AAAA\n")
    configuration.write_text(
        "Host 192.0.2.1\n  Port 2200\n  ProxyJump me@first,bastion:2222\n"
        f"  IdentityFile {tmp_path}/none\n  IdentityFile {key}\n  IdentityAgent {tmp_path}/agent\n"
    )
    variables = {
        "ansible_user": "ec2-user",
        "ansible_ssh_common_args": f"-F {configuration} -o 'UserKnownHostsFile=\"{known}\"'",
    }
    data = reach(desired(**variables), "h1")
    written = Path(data.pop("ssh_config_file")).read_text().splitlines()
    (line,) = [line for line in written if line.startswith("UserKnownHostsFile ")]
    assert known.read_text() in Path(line.partition(" ")[2]).read_text()
    assert [line for line in written if line.startswith("Identity")] == [
        f"IdentityFile {key}",
        f"IdentityAgent {tmp_path}/agent",
    ]
    jump = "ssh -F {configuration} -J me@first -W '[192.0.2.1]:2200' ssh://bastion:2222"
    assert f"ProxyCommand {jump.format(configuration=configuration)}" in written
    assert data == {
        "ssh_hostname": "192.0.2.1",
        "ssh_port": 2200,
        "ssh_user": "ec2-user",
        "ssh_strict_host_key_checking": "yes",
        "_sudo": True,
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


def test_a_password_for_sudo_is_refused(desired: Callable[..., Desired]) -> None:
    with pytest.raises(DesiredError, match=r"h1: ansible_become_password is set, .* host's command line") as refused:
        reach(desired(ansible_become_password=SECRET), "h1")
    assert SECRET not in str(refused.value)
    reach(desired(ansible_become_password=SECRET, ansible_become=False), "h1")


@pytest.mark.parametrize("name", ["web;touch x-i-0abc", "../../x", "/etc/x", "a b'\"", "\N{SNOWMAN}" * 200])
def test_a_host_s_name_may_be_anything(desired: Callable[..., Desired], name: str) -> None:
    written = Path(reach(desired(name), name)["ssh_config_file"])
    (known,) = [line.split()[1] for line in written.read_text().splitlines() if line.startswith("UserKnownHostsFile ")]
    assert written.resolve().parent == written.parent == Path(known).parent


def test_a_name_that_pyinfra_takes_for_a_connection_is_refused(desired: Callable[..., Desired]) -> None:
    with pytest.raises(DesiredError, match=r"@local: .* starts with @ .* change its tag Name"):
        reach(desired("@local"), "@local")
