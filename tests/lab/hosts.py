"""The lab's hosts: systemd containers with sshd on a published loopback port, on a network of their own."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import shutil
import socket
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from tests.lab import LabError, engine

LABEL = "roboshop.lab"
BOOT_SECONDS = 60
LOGIN = "ec2-user"
SSHD_LOG = ["journalctl", "--no-pager", "-n", "20", "-u", "ssh", "-u", "sshd"]
INOTIFY, INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances"), 512


@dataclass(frozen=True)
class Host:
    """One host: its name (of the container and in the inventory), its inventory group, its published ports."""

    name: str
    group: str
    ssh_port: int
    other_ports: tuple[tuple[int, int], ...] = ()  # (port in the container, port on 127.0.0.1)


@dataclass(frozen=True)
class Lab:
    """Hosts that are booted and removed as one; the directory `state` holds their key, known_hosts and secrets.

    With a `subnet`, each host keeps its address for as long as it exists, as an EC2 host does.
    """

    name: str
    state: Path
    hosts: tuple[Host, ...]
    subnet: str | None = None

    @property
    def network(self) -> str:
        return f"roboshop-{self.name}"

    def connection(self, name: str) -> dict[str, str | int]:
        """The variables by which Ansible reaches a host over SSH."""
        known_hosts = self.state / "known_hosts"
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": next(host.ssh_port for host in self.hosts if host.name == name),
            "ansible_user": LOGIN,
            "ansible_ssh_private_key_file": str(self.state / "id_ed25519"),
            "ansible_ssh_common_args": f"-o 'UserKnownHostsFile=\"{known_hosts}\"' -o IdentitiesOnly=yes",
        }

    def cut_off(self, client: docker.DockerClient, name: str) -> None:
        """Take a host off the network; what it has running goes on."""
        client.networks.get(self.network).disconnect(name)

    def reconnect(self, client: docker.DockerClient, name: str) -> None:
        """Put a host on the network again."""
        client.networks.get(self.network).connect(name, ipv4_address=self._address(name))

    def up(self, client: docker.DockerClient, image: str) -> None:
        """Boot every host that isn't running, remove surplus ones, and record the host keys.

        Raises LabError where a host does not come up.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        _make_room(len(self.hosts))
        for container in self._containers(client):
            if container.name not in [host.name for host in self.hosts]:
                container.remove(force=True, v=True)
                print(f"  {container.name}: removed", flush=True)
        key = self._key()
        if not client.networks.list(names=[f"^{self.network}$"]):
            pools = [docker.types.IPAMPool(self.subnet)] if self.subnet else None
            client.networks.create(
                self.network,
                driver="bridge",
                labels={LABEL: self.name},
                ipam=docker.types.IPAMConfig(pool_configs=pools),
            )
        containers = [self.boot(client, image, host) for host in self.hosts]
        known_hosts = []
        for host, container in zip(self.hosts, containers, strict=True):
            await_boot(container)
            put(container, f"/home/{LOGIN}/.ssh", {"authorized_keys": key.encode()})
            _run(container, "chown", LOGIN, f"/home/{LOGIN}/.ssh/authorized_keys")
            _await_ssh(container, host.ssh_port)
            known_hosts.append(f"[127.0.0.1]:{host.ssh_port} {_host_key(container)}\n")
            print(f"  {host.name}: up, ssh on 127.0.0.1:{host.ssh_port}", flush=True)
        (self.state / "known_hosts").write_text("".join(known_hosts))

    def made_of_others(self, client: docker.DockerClient, image: str) -> list[str]:
        """The names of existing hosts that were made of another image than `image`."""
        wanted = client.images.get(image)
        return [str(container.name) for container in self._containers(client) if container.image != wanted]

    def down(self, client: docker.DockerClient) -> list[str]:
        """Remove the lab's containers and network; return the names of all it removed."""
        removed = []
        for container in self._containers(client):
            removed.append(str(container.name))
            container.remove(force=True, v=True)
        for network in client.networks.list(filters={"label": f"{LABEL}={self.name}"}):
            removed.append(f"network {network.name}")
            network.remove()
        return removed

    def _containers(self, client: docker.DockerClient) -> list[Container]:
        return client.containers.list(all=True, filters={"label": f"{LABEL}={self.name}"})

    def _key(self) -> str:
        private = self.state / "id_ed25519"
        if not shutil.which("ssh-keygen"):
            engine.install("openssh-client")
        if not private.exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.network, "-f", str(private)], check=True
            )
        return private.with_suffix(".pub").read_text()

    def boot(self, client: docker.DockerClient, image: str, host: Host) -> Container:
        try:
            container = client.containers.get(host.name)
        except NotFound:
            return self._create(client, image, host)
        if container.labels.get(LABEL) != self.name:
            raise LabError(f"A container named {host.name} exists that is not the lab's; remove or rename it.")
        if container.status != "running":
            _start(container)
        return container

    def _address(self, name: str) -> str | None:
        if not self.subnet:
            return None
        # Docker has the first ones for itself.
        return str(ipaddress.ip_network(self.subnet)[11 + [host.name for host in self.hosts].index(name)])

    def _create(self, client: docker.DockerClient, image: str, host: Host) -> Container:
        address = client.api.create_endpoint_config(ipv4_address=self._address(host.name))
        ports = {22: host.ssh_port, **dict(host.other_ports)}
        try:
            # systemd runs without --privileged if it may mount (SYS_ADMIN) and see its cgroup.
            container = client.containers.create(
                image,
                name=host.name,
                hostname=host.name,
                labels={LABEL: self.name, "roboshop.group": host.group},
                network=self.network,
                networking_config={self.network: address},
                ports={f"{inside}/tcp": ("127.0.0.1", outside) for inside, outside in ports.items()},
                cap_add=["SYS_ADMIN"],
                security_opt=["seccomp=unconfined", "apparmor=unconfined"],
                tmpfs={"/run": "", "/tmp": "exec,mode=1777"},
                volumes={"/sys/fs/cgroup": {"bind": "/sys/fs/cgroup", "mode": "rw"}},
                cgroupns="host",
            )
        except APIError as error:
            raise LabError(f"The host {host.name} could not be made: {error.explanation or error}") from error
        _start(container)
        return container


def _start(container: Container) -> None:
    try:
        container.start()
    except APIError as error:
        raise LabError(
            f"The host {container.name} could not be started: {error.explanation or error}\n"
            "If something on this machine listens on a port of the lab, stop that and run the command again."
        ) from error


def _make_room(hosts: int) -> None:
    """Raise the kernel's limit of inotify(7) instances, if this user may, because all hosts share it.

    A host uses about seven; without a free one its systemd waits for ever.
    """
    try:
        if int(INOTIFY.read_text()) < INSTANCES:
            INOTIFY.write_text(str(INSTANCES))
    except PermissionError:
        if hosts > 10:
            print(f"  if hosts don't boot: sudo sysctl fs.inotify.max_user_instances={INSTANCES}", flush=True)
    except FileNotFoundError:
        pass  # not Linux: the engine runs in a virtual machine


def await_boot(container: Container) -> None:
    """Wait until systemd has started everything, sshd included. Raises LabError after BOOT_SECONDS."""
    deadline = time.monotonic() + BOOT_SECONDS
    state = ""
    while time.monotonic() < deadline:
        _, state = execute(container, "systemctl", "is-system-running")
        if state in ("running", "degraded") and execute(container, "systemctl", "is-active", "sshd")[0] == 0:
            return
        time.sleep(0.2)
    raise LabError(
        f"The host {container.name} is not up after {BOOT_SECONDS} s (systemd says: {state or 'nothing'}); "
        f"see `docker logs {container.name}` and `docker exec {container.name} systemctl --failed`."
    )


def _await_ssh(container: Container, port: int) -> None:
    """Wait until sshd greets on its published port, because the engine may forward a port later than sshd listens.

    Raises LabError after BOOT_SECONDS, with what the host says of its sshd.
    """
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            if connection.recv(4) == b"SSH-":
                return
        time.sleep(0.2)
    said = (execute(container, *command)[1] for command in (["ss", "-tlnp"], ["ip", "-br", "addr"], SSHD_LOG))
    raise LabError(
        f"The host {container.name} runs sshd, but nothing greets on 127.0.0.1:{port} within {BOOT_SECONDS} s. "
        "See whether a firewall of this machine keeps the engine from forwarding ports. The host says:\n"
        + "\n".join(said)
    )


def _host_key(container: Container) -> str:
    """The host's public key, in the format of known_hosts. Asks again, as Docker may lose output under load."""
    for _ in range(10):
        words = _run(container, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()
        if len(words) > 1:
            return f"{words[0]} {words[1]}"
    raise LabError(f"The host {container.name} does not tell its host key.")


def put(container: Container, directory: str, files: dict[str, bytes]) -> None:
    """Write files, by name, into a directory of a host; only root can read them."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            tar.addfile(member, io.BytesIO(content))
    container.put_archive(directory, archive.getvalue())


def get(container: Container, path: str) -> bytes:
    """Return a file of a host, which must not be in a file system in memory, such as /run and /tmp. Raises LabError."""
    parts, _ = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as tar:
        file = tar.extractfile(Path(path).name)
        if not file:
            raise LabError(f"{path} on {container.name} is no file.")
        return file.read()


def _run(container: Container, *command: str) -> str:
    code, output = execute(container, *command)
    if code:
        raise LabError(f"`{' '.join(command)}` failed on {container.name}: {output}")
    return output


def execute(container: Container, *command: str) -> tuple[int, str]:
    """Run a command in a host as root; return its exit code and its output, without white space around it."""
    code, output = container.exec_run(list(command))
    assert isinstance(output, bytes)
    return int(code or 0), output.decode().strip()
