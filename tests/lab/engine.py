"""Makes sure that a Docker engine answers, and stops it again where the lab started it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import docker
from docker.errors import DockerException

from tests.lab import LabError

START_SECONDS = 60
SOCKET = "/var/run/docker.sock"
LOG = Path("/var/log/roboshop-lab-dockerd.log")

INSTALL_HINT = (
    "No Docker engine answers. Install Docker Engine (https://docs.docker.com/engine/install/), start it, "
    "make sure that `docker info` works for this user, then run the command again; where it works already, by a "
    "context such as Docker Desktop's: export DOCKER_HOST=$(docker context inspect -f '{{.Endpoints.docker.Host}}'). "
    "As root on Debian the lab installs and starts Debian's own."
)


def connect(state: Path) -> docker.DockerClient:
    """Return a client of a working engine; where there is none, install and start Debian's, if this user may.

    `state` is the lab's directory on this machine: it keeps the pid of an engine started here.
    Raises LabError if there is none and none can be installed.
    """
    client = running()
    if client:
        return client
    if os.geteuid() != 0:
        raise LabError(INSTALL_HINT)
    if not shutil.which("dockerd"):
        install("docker.io", "iptables")
    _start(state)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        client = running()
        if client:
            return client
        time.sleep(0.5)
    raise LabError(f"dockerd did not answer within {START_SECONDS} s; its log is {LOG} (or `journalctl -u docker`).")


def stop(state: Path) -> bool:
    """Stop the engine if the lab started it by hand; return whether it did."""
    pid_file = state / "dockerd.pid"
    try:
        pid = int(pid_file.read_text())
        # After a reboot the pid may belong to another process, so only a dockerd is stopped.
        if Path(f"/proc/{pid}/comm").read_text().strip() != "dockerd":
            return False
    except (OSError, ValueError):
        return False
    os.kill(pid, signal.SIGTERM)
    while _alive(pid):
        time.sleep(0.2)
    LOG.unlink(missing_ok=True)
    pid_file.unlink(missing_ok=True)
    return True


def install(*packages: str) -> None:
    """Install Debian packages on this machine. Raises LabError where that is not possible."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(f"The lab needs {' and '.join(packages)}; install it and run the command again.")
    print(f"  installing {' and '.join(packages)} on this machine", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise LabError(f"`{' '.join(command)}` failed:\n{done.stdout}")


def unpack(packages: Sequence[str], directory: Path) -> None:
    """Unpack the first of some Debian packages that there is, which installs and starts nothing. Raises LabError."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(f"A program of the package {' or '.join(packages)} is needed; install it and run this again.")
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
    with tempfile.TemporaryDirectory() as fetched:
        for package in packages:
            command = ["apt-get", "download", "-qq", package]
            done = subprocess.run(command, cwd=fetched, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for file in Path(fetched).glob("*.deb"):
                print(f"  unpacking {package} in {directory}", flush=True)
                subprocess.run(["dpkg-deb", "-x", file, directory], check=True)
                return
    raise LabError(f"`{' '.join(command)}` failed:\n{done.stdout}")


def running() -> docker.DockerClient | None:
    """Return a client of the engine that runs, or None."""
    # docker's client leaks its socket when nobody listens, so a plain connection tries first.
    with socket.socket(socket.AF_UNIX) as probe:
        if "DOCKER_HOST" not in os.environ and probe.connect_ex(SOCKET):
            return None
    try:
        return docker.from_env(version="auto")
    except DockerException:
        return None


def _start(state: Path) -> None:
    print("  starting the Docker engine", flush=True)
    if Path("/run/systemd/system").is_dir():
        if subprocess.run(["systemctl", "start", "docker"]).returncode:
            raise LabError("systemd can't start the Docker engine; see `journalctl -u docker`.")
        return
    # Debian's init script raises ulimits, which a container without CAP_SYS_RESOURCE may not do: start dockerd itself.
    state.mkdir(parents=True, exist_ok=True)
    command = ["setsid", "--fork", "dockerd", "--pidfile", str(state / "dockerd.pid")]
    with LOG.open("ab") as log:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
