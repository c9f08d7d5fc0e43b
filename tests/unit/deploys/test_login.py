"""pyinfra logs in as Ansible does: by a key that ssh-agent alone has, by a password alone, past a greeting."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
)

from tests.lab.ansible import ROOT
from tests.second_engine import PYINFRA

PASSWORD = "not-to-be-seen"  # noqa: S105 - that of no login


class Login(paramiko.ServerInterface):
    """An SSH server's view of one connection: whom it lets in, and what it runs, by a shell that greets first."""

    def __init__(self, key: paramiko.PKey | None) -> None:
        self.key = key

    def get_allowed_auths(self, username: str) -> str:
        del username
        return "publickey" if self.key else "password"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        del username
        return AUTH_SUCCESSFUL if key == self.key else AUTH_FAILED

    def check_auth_password(self, username: str, password: str) -> int:
        del username
        return AUTH_SUCCESSFUL if not self.key and password == PASSWORD else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        del chanid
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self.execute, args=(channel, command.decode())).start()
        return True

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        with channel.makefile("rb") as stdin:
            said = stdin.read()
        done = subprocess.run(["sh", "-c", f"printf Welcome; {command}"], input=said, capture_output=True)
        channel.sendall(done.stdout)
        channel.sendall_stderr(done.stderr)
        channel.send_exit_status(done.returncode)
        channel.close()


@contextlib.contextmanager
def host(directory: Path, key: paramiko.PKey | None) -> Iterator[dict[str, object]]:
    """An SSH server on this machine that lets in who has `key`, or the password; yields how Ansible reaches it."""
    host_key = paramiko.ECDSAKey.generate()
    transports = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                transports.append(paramiko.Transport(listener.accept()[0]))
                transports[-1].add_server_key(host_key)
                with contextlib.suppress(paramiko.SSHException, EOFError):
                    transports[-1].start_server(server=Login(key))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        known = directory / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {host_key.get_name()} {host_key.get_base64()}\n")
        thread = threading.Thread(target=serve)
        thread.start()
        yield {
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_become": False,
            "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={known}",
        }
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for transport in transports:
        transport.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[paramiko.PKey, str]]:
    """A key that ssh-agent has and no file; the agent's socket."""
    key, file, path = paramiko.ECDSAKey.generate(), tmp_path / "key", str(tmp_path / "agent")
    key.write_private_key_file(str(file))
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it listens once it has said where
        subprocess.run(["ssh-add", "-q", str(file)], env={**os.environ, "SSH_AUTH_SOCK": path}, check=True)
        file.unlink()
        yield key, path
        process.terminate()


def test_a_sudo_that_asks_for_a_password_is_given_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with host(tmp_path, None) as variables:
        given = {"ansible_become": True, "ansible_password": PASSWORD}
        said = pyinfra(tmp_path, {**variables, **given}, "exec", "--", "true")
    assert "[h1] sudo asks for a password, which pyinfra would give it" in " ".join(said.split()), said
    assert "Traceback" not in said


def pyinfra(directory: Path, variables: dict[str, object] | None, *arguments: str, agent: str = "") -> str:
    """Run pyinfra on one host with these variables, or on none, and with this agent alone; return all it printed."""
    inventory = directory / "hosts.yml"
    hosts = {} if variables is None else {"h1": variables}
    inventory.write_text(json.dumps({"all": {"children": {"dispatch": {"hosts": hosts}}}}))
    environment = {"ANSIBLE_INVENTORY": str(inventory), "SSH_AUTH_SOCK": agent, "HOME": str(directory)}
    command = [PYINFRA, "deploys/inventory.py", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def test_an_inventory_without_hosts_is_no_success(tmp_path: Path) -> None:
    assert "The inventory has no host in the group dispatch. Add" in pyinfra(tmp_path, None, "exec", "--", "true")


def test_a_key_that_the_agent_alone_has_lets_in(tmp_path: Path, agent: tuple[paramiko.PKey, str]) -> None:
    key, path = agent
    with host(tmp_path, key) as variables:
        said = pyinfra(tmp_path, variables, "exec", "--", "echo in-by-the-agent", agent=path)
        assert "[h1] Connected" in said, said
        assert "in-by-the-agent" in said


def test_a_password_alone_lets_in(tmp_path: Path) -> None:
    with host(tmp_path, None) as variables:
        password = {"ansible_password": PASSWORD}
        said = pyinfra(tmp_path, {**variables, **password}, "--debug", "exec", "--", "echo in-by-a-password")
        assert "[h1] Connected" in said, said
        assert "in-by-a-password" in said
        assert PASSWORD not in said
        assert "Connected" not in pyinfra(tmp_path, {**variables, "ansible_password": "…"}, "exec", "--", "true")


def test_a_login_that_greets_is_asked_all_the_same(tmp_path: Path) -> None:
    artifact = tmp_path / "x.zip"
    with zipfile.ZipFile(artifact, "w") as archive:
        archive.writestr("requirements.txt", "")
    given = {
        "ansible_password": PASSWORD,
        "dispatch_amqp_host": "rabbit",
        "dispatch_amqp_password": PASSWORD,
        "dispatch_artifact": str(artifact),
        # With this the program that runs on the host has something to answer that depends on no host.
        "python_runtime_systems": {"None-0": {"interpreter": "/python"}},
    }
    with host(tmp_path, None) as variables:
        said = pyinfra(tmp_path, {**variables, **given}, "--dry", "deploys/dispatch.py")
    assert "is not a supported system. Supported: None-0" in said, said
    assert "Traceback" not in said


@pytest.mark.parametrize("format_", [(), ("--json",)])
def test_the_inventory_is_shown_without_passwords(tmp_path: Path, format_: tuple[str, ...]) -> None:
    secrets = {"ansible_password": PASSWORD, "ansible_ssh_private_key_passphrase": PASSWORD}
    key = tmp_path / "key"
    key.touch()
    said = pyinfra(
        tmp_path, {**secrets, "ansible_ssh_private_key_file": str(key)}, *format_, "debug-inventory", agent="none"
    )
    assert "ssh_password" in said, said
    assert "ssh_key_password" in said
    assert PASSWORD not in said
