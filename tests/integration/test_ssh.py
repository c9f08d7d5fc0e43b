"""OpenSSH as an operator of EC2 hosts has it: a login without root, sudo, known host keys, a bastion in between."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import BROKER, DISPATCH, FRESH, TestLab
from tests.lab.ansible import playbook
from tests.second_engine import deploy

BASTION = FRESH


@pytest.fixture
def behind_bastion(lab: TestLab, tmp_path: Path) -> Path:
    """An inventory with the Dispatch host at its private address, which ssh reaches only through the bastion."""
    state = lab.lab.state
    ports = {host.name: f"[127.0.0.1]:{host.ssh_port} " for host in lab.lab.hosts}
    keys = (state / "known_hosts").read_text().splitlines()
    key = next(line for line in keys if line.startswith(ports[DISPATCH])).removeprefix(ports[DISPATCH])
    (tmp_path / "known_hosts").write_text("\n".join([*keys, f"{address(lab, DISPATCH)} {key}", ""]))
    (tmp_path / "ssh_config").write_text(
        f"""
Host *
  User ec2-user
  IdentityFile {state / "id_ed25519"}
  IdentitiesOnly yes
  UserKnownHostsFile {tmp_path / "known_hosts"}
Host bastion
  HostName 127.0.0.1
  Port {ports[BASTION].rpartition(":")[2]}
Host {address(lab, DISPATCH)}
  ProxyJump bastion
"""
    )
    (tmp_path / "hosts.yml").write_text(
        yaml.safe_dump(
            {
                "dispatch": {
                    "hosts": {DISPATCH: {"ansible_host": address(lab, DISPATCH)}},
                    "vars": {
                        "ansible_user": "ec2-user",
                        "ansible_ssh_common_args": f"-F {tmp_path / 'ssh_config'}",
                        # An open connection of another test would bypass the checks of keys and logins.
                        "ansible_control_path_dir": str(tmp_path / "cp"),
                        "dispatch_amqp_host": BROKER,
                        "dispatch_amqp_password": lab.password,
                    },
                }
            }
        )
    )
    return tmp_path / "hosts.yml"


def address(lab: TestLab, name: str) -> str:
    """The private address of a host."""
    networks = lab.host(name).attrs["NetworkSettings"]["Networks"]
    return str(networks[lab.lab.network]["IPAddress"])


def test_a_bastion_stands_between(lab: TestLab, behind_bastion: Path) -> None:
    run = playbook("dispatch", inventory=behind_bastion)
    assert (run.code, run.changed) == (0, 0), run.output
    logins = lab.run(DISPATCH, "journalctl", "--unit", "ssh", "--grep", "Accepted publickey", "--output", "cat")
    assert f"for ec2-user from {address(lab, BASTION)} " in logins


def test_pyinfra_goes_by_way_of_the_bastion_too(lab: TestLab, behind_bastion: Path) -> None:
    since = lab.run(DISPATCH, "date", "+%H:%M:%S")
    run = deploy(behind_bastion, "--yes")
    assert (run.code, run.changed) == (0, {}), run.output
    logins = lab.run(DISPATCH, "journalctl", "--unit=ssh", f"--since={since}", "--grep=Accepted", "--output=cat")
    assert f"for ec2-user from {address(lab, BASTION)} " in logins


@pytest.mark.parametrize("which", ["the host", "the bastion"])
def test_a_host_key_that_is_not_known_stops_the_play(lab: TestLab, behind_bastion: Path, which: str) -> None:
    known = behind_bastion.with_name("known_hosts")
    name = address(lab, DISPATCH) if which == "the host" else "[127.0.0.1]"
    known.write_text("".join(line for line in known.read_text().splitlines(True) if not line.startswith(name)))
    run = playbook("dispatch", inventory=behind_bastion)
    assert run.code != 0
    assert run.recap[DISPATCH]["unreachable"] == 1
    assert run.changed == 0
    # ssh tells only its parent process about the bastion's key; Ansible hears that the connection is closed.
    assert ("Host key verification failed" if which == "the host" else "Connection closed by UNKNOWN") in run.output, (
        run.output
    )
