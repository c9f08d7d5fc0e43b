"""Bad input stops a play before any change, with the variable's name and what to do.

Each way to be wrong has a unit test of its own; here one of each part that refuses is enough outside `make test-long`.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from tests.integration.conftest import FRESH, TestLab
from tests.lab.ansible import Run, playbook
from tests.lab.hosts import execute

# A play that changed anything would leave at least one of these.
TRACES = [
    "/app",
    "/etc/dispatch",
    "/etc/systemd/system/dispatch.service",
    "/usr/bin/dispatch",
    "/usr/lib/python3.11/ensurepip",
]


@pytest.fixture
def site(hosts: TestLab, artifact: Path, tmp_path: Path) -> Site:
    return Site(hosts, artifact, tmp_path)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A small artifact that passes every check but holds nothing to run."""
    path = tmp_path / "good.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("requirements.txt", "")
    return path


class Site:
    """Provisions the fresh host with good values, except those that a test gives."""

    def __init__(self, hosts: TestLab, artifact: Path, directory: Path) -> None:
        self.hosts = hosts
        self.inventory = directory / "hosts.yml"
        self.good = {
            "dispatch_amqp_host": "test-broker",
            "dispatch_amqp_password": "secret-of-the-test",
            "dispatch_artifact": str(artifact),
        }

    def refused(self, *said: str, host_variables: dict[str, object] | None = None, **variables: object) -> Run:
        """Run dispatch.yml; a variable given as None is left out. Assert that it is refused, saying all of `said`."""
        values = {key: value for key, value in {**self.good, **variables}.items() if value is not None}
        group = {"hosts": {FRESH: {**self.hosts.lab.connection(FRESH), **(host_variables or {})}}, "vars": values}
        self.inventory.write_text(json.dumps({"all": {"children": {"dispatch": group}}}))
        run = playbook("dispatch", inventory=self.inventory)
        assert run.code != 0, run.output
        assert run.changed == 0, run.output
        text = " ".join(run.output.split())
        for words in said:
            assert words in text, run.output
        assert "secret-of-the-test" not in run.output
        _, present = execute(self.hosts.host(FRESH), "ls", "-d", *TRACES)
        assert not [line for line in present.splitlines() if line in TRACES]
        return run


def test_all_values_that_can_t_be_right_are_told_at_once(site: Site) -> None:
    site.refused(
        'dispatch_amqp_host is "<RABBITMQ-IP>". Set it in the inventory',
        "dispatch_amqp_port is 0. Set it to a port from 1 to 65535",
        "dispatch_amqp_password is not set. Put the password",
        dispatch_amqp_host="<RABBITMQ-IP>",
        dispatch_amqp_port=0,
        dispatch_amqp_password=None,
    )


@pytest.mark.long
def test_no_address(site: Site) -> None:
    site.refused("dispatch_amqp_host is not set. Set it in the inventory", dispatch_amqp_host=None)


@pytest.mark.long
@pytest.mark.parametrize(
    "address", ["", "<RABBITMQ-IP>", "<RABBITMQ-SERVER-IP-ADDRESS>", "amqp://10.0.1.20", "10.0.1.20,"]
)
def test_an_address_that_is_none(site: Site, address: str) -> None:
    site.refused(f'dispatch_amqp_host is "{address}". Set it in the inventory', dispatch_amqp_host=address)


@pytest.mark.long
def test_no_password(site: Site) -> None:
    site.refused("dispatch_amqp_password is not set. Put the password", "ansible-vault", dispatch_amqp_password=None)


@pytest.mark.long
@pytest.mark.parametrize("port", [0, 65536, -1])
def test_a_port_out_of_range(site: Site, port: int) -> None:
    site.refused(f"dispatch_amqp_port is {port}. Set it to a port from 1 to 65535", dispatch_amqp_port=port)


def test_a_port_that_is_no_number(site: Site) -> None:
    site.refused("dispatch_amqp_port", "unable to convert to int", dispatch_amqp_port="amqp")


def test_an_unsupported_system(site: Site) -> None:
    systems = {"Slackware-15": {"interpreter": "/usr/bin/python3.9", "packages": []}}
    site.refused(
        "Debian GNU/Linux 12", "is not a supported system. Supported: Slackware-15", python_runtime_systems=systems
    )


@pytest.mark.long
def test_a_missing_artifact(site: Site) -> None:
    site.refused(
        "dispatch_artifact is /nowhere/dispatch.zip", "make artifact", dispatch_artifact="/nowhere/dispatch.zip"
    )


@pytest.mark.long
def test_an_artifact_that_is_no_zip(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "dispatch.zip"
    path.write_text("<Error>AccessDenied</Error>")
    site.refused(f"dispatch_artifact is {path}", "not a readable zip file", dispatch_artifact=str(path))


def test_an_artifact_that_is_damaged(site: Site, artifact: Path) -> None:
    with zipfile.ZipFile(artifact, "w") as archive:
        archive.writestr("requirements.txt", "pika==1.4.4")
    artifact.write_bytes(artifact.read_bytes().replace(b"pika", b"pixa"))
    site.refused(f"dispatch_artifact is {artifact}", "requirements.txt is damaged")


@pytest.mark.long
def test_an_artifact_with_another_checksum(site: Site, artifact: Path) -> None:
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    site.refused(digest, f"dispatch_artifact_sha256 says {'0' * 64}", dispatch_artifact_sha256="0" * 64)


@pytest.mark.long
def test_an_artifact_of_no_kind(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "dispatch.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dispatch/requirements.txt", "pika\n")
    site.refused(f"dispatch_artifact is {path}", "none of the three that can be installed", dispatch_artifact=str(path))


@pytest.mark.long
def test_a_url_without_a_checksum(site: Site) -> None:
    site.refused(
        "dispatch_artifact_sha256",
        "required where dispatch_artifact is a URL",
        dispatch_artifact="http://127.0.0.1/x.zip",
    )


def test_a_url_that_answers_nothing(site: Site) -> None:
    site.refused(
        "dispatch_artifact is http://127.0.0.1:9/dispatch.zip, which could not be fetched on this host",
        dispatch_artifact="http://127.0.0.1:9/dispatch.zip",
        dispatch_artifact_sha256="0" * 64,
    )


def test_an_unreachable_host(site: Site) -> None:
    run = site.refused("UNREACHABLE", host_variables={"ansible_port": 1})
    assert run.recap[FRESH]["unreachable"] == 1
