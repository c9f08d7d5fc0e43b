"""The two engines agree, on real hosts: what one has provisioned the other leaves alone, and both mend the same."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import docker
import pytest
import yaml

from tests.integration.conftest import booted
from tests.lab import LabError, image
from tests.lab.ansible import ROOT, Run, playbook
from tests.lab.hosts import Host, Lab, execute, put
from tests.lab.inventory import listed
from tests.second_engine import Deploy, deploy

pytestmark = pytest.mark.long

BROKER, BY_ANSIBLE, BY_PYINFRA, EL9 = "parity-broker", "parity-ansible", "parity-pyinfra", "parity-el9"
SUBNET = "172.31.223.0/24"
GROUP_ID = 4711

# The artifact carries pip, so that a host has all that it needs; this one is to lack a package.
SYSTEMS = yaml.safe_load((ROOT / "roles/python_runtime/defaults/main.yml").read_text())["python_runtime_systems"]
SYSTEMS["debian-12"].pop("bare")

# Packages and the system itself write these, and their content differs between any two hosts, or from minute to minute.
VOLATILE = re.compile(
    r"/(var/(log|cache|backups|lib/(apt|dpkg|systemd|dbus|pam|dnf|rpm)|tmp/systemd-private-.*)|run|tmp|proc|sys|dev)(/|$)"
    r"|/etc/(ssh/ssh_host_.*|machine-id|mtab|ld\.so\.cache|(passwd|shadow|group|gshadow|subuid|subgid)-?)$"
    r"|/(root|home/ec2-user)(/\.ansible(/tmp)?|/\.ssh.*)?$"
)
# This program runs on a host. For each path on standard input it says what is there and what it holds, except bytecode
# and the ledger: these hold times, which differ from host to host.
LISTING = """
import hashlib, pathlib, stat, sys
for path in map(pathlib.Path, sys.stdin.read().splitlines()):
    try:
        found = path.lstat()
    except FileNotFoundError:
        continue
    held = ""
    if path.is_symlink():
        held = path.readlink()
    elif path.is_file() and path.suffix != ".pyc" and "ledger.db" not in path.name:
        held = hashlib.sha256(path.read_bytes()).hexdigest()
    print(path, stat.filemode(found.st_mode), path.owner(), path.group(), held)
"""
STATE = r"""
for database in passwd shadow group; do getent $database roboshop | sed -E 's/:[0-9]{5}:[0-9]*:/:day:/'; done
systemctl show dispatch --property=ActiveState,SubState,UnitFileState,NeedDaemonReload,FragmentPath,DropInPaths
"""


@dataclass(frozen=True)
class Pair:
    """A broker and two Dispatch hosts, one for each engine, in one inventory."""

    client: docker.DockerClient
    lab: Lab
    inventory: Path
    variables: dict[str, object]

    @property
    def password(self) -> str:
        return str(self.variables["dispatch_amqp_password"])

    def run(self, name: str, script: str) -> str:
        code, output = execute(self.client.containers.get(name), "sh", "-c", script)
        assert code == 0, f"{script} on {name}: {output}"
        return output

    def ansible(self, *arguments: str) -> Run:
        run = playbook("dispatch", *arguments, inventory=self.inventory)
        assert run.code == 0, run.output
        assert self.password not in run.output
        return run

    def pyinfra(self, *arguments: str) -> Deploy:
        run = deploy(self.inventory, *arguments)
        assert run.code == 0, run.output
        assert self.password not in run.output + json.dumps(run.report)
        return run

    def mend(self, name: str) -> object:
        """Run a host's own engine on it; return what it says it has changed, which is false where that is nothing."""
        if name == BY_ANSIBLE:
            return self.ansible("--limit", name).changed
        return self.pyinfra("--yes", "--limit", name).changed

    def listing(self, name: str) -> list[str]:
        """All files that a host has and its image does not, and the state of the unit and of the user."""
        changes = self.client.api.diff(name)
        paths = sorted(change["Path"] for change in changes if not VOLATILE.match(change["Path"]))
        put(self.client.containers.get(name), "/var/log", {"parity": "".join(f"{path}\n" for path in paths).encode()})
        listed = self.run(name, f"python3 -c {shlex.quote(LISTING)} < /var/log/parity")
        return [*listed.splitlines(), *self.run(name, STATE).splitlines()]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A broker, and two hosts that no engine has touched yet."""
    directory = tmp_path_factory.mktemp("parity")
    lab = Lab(
        "parity",
        directory / ".lab",
        (
            Host(BROKER, "rabbitmq", 22400, ((5672, 22451),)),
            Host(BY_ANSIBLE, "dispatch", 22401),
            Host(BY_PYINFRA, "dispatch", 22402),
        ),
        SUBNET,
    )
    with booted(lab) as client:
        password = uuid.uuid4().hex
        variables: dict[str, object] = dict.fromkeys(("dispatch_amqp_password", "rabbitmq_password"), password)
        variables |= {"dispatch_amqp_host": BROKER, "python_runtime_systems": SYSTEMS}
        inventory = listed(lab, directory / "hosts.yml", variables)
        run = playbook("rabbitmq", inventory=inventory)
        assert run.code == 0, run.output
        yield Pair(client, lab, inventory, variables)


@pytest.fixture(scope="module")
def pair(fresh: Pair) -> Pair:
    """Each Dispatch host provisioned by its engine; its login greets, and it has the user's group already."""
    for name in (BY_ANSIBLE, BY_PYINFRA):
        fresh.run(name, f"sed -i '1i echo Welcome' /home/ec2-user/.bashrc && groupadd --gid {GROUP_ID} roboshop")
    fresh.ansible("--limit", BY_ANSIBLE)
    assert fresh.pyinfra("--yes", "--limit", BY_PYINFRA).changed
    return fresh


def test_both_engines_leave_the_same_on_a_fresh_host(pair: Pair) -> None:
    by_ansible, by_pyinfra = pair.listing(BY_ANSIBLE), pair.listing(BY_PYINFRA)
    for path in ("/app/current", "/etc/dispatch/credentials/amqp_password", "/etc/systemd/system/dispatch.service"):
        assert [line for line in by_ansible if line.startswith(f"{path} ")]
    assert len(by_ansible) > 500
    assert by_pyinfra == by_ansible
    assert pair.run(BY_PYINFRA, "id -g roboshop") == str(GROUP_ID)


def test_pyinfra_finds_nothing_to_change_where_ansible_has_been(pair: Pair) -> None:
    assert pair.pyinfra("--dry", "--limit", BY_ANSIBLE).planned == {}
    assert pair.pyinfra("--yes", "--limit", BY_ANSIBLE).changed == {}


def test_ansible_finds_nothing_to_change_where_pyinfra_has_been(pair: Pair) -> None:
    run = pair.ansible("--limit", BY_PYINFRA)
    assert run.changed == 0, run.output


DRIFTS = {
    "the unit's mode": "chmod 0600 /etc/systemd/system/dispatch.service",
    "the mode of the credentials' directory": "chmod 0755 /etc/dispatch/credentials",
    "the environment's owner": "chown nobody /etc/dispatch/environment",
    "the owner of the home": "chown roboshop:roboshop /app",
    "a stopped service": "systemctl stop dispatch",
    "a disabled service": "systemctl disable --quiet dispatch",
    "an edited unit": "sed -i s/^Restart=always/Restart=no/ /etc/systemd/system/dispatch.service",
    "an edited command": "echo '# mine' >> /usr/bin/dispatch",
    "a changed credential": "printf other > /etc/dispatch/credentials/amqp_password",
    "a missing environment": "rm /etc/dispatch/environment",
    "another release": "cp -a $(readlink /app/current) /app/releases/other && ln -sfn /app/releases/other /app/current",
    "a changed user": "usermod --shell /bin/sh --comment x roboshop",
    "an unlocked user": "passwd --quiet --delete roboshop",
    "a missing home": "rm -r /app",
    "a deleted file of the venv": "rm /app/current/venv/lib/python*/site-packages/pika/spec.py",
    "an edited file of the venv": "echo >> /app/current/venv/lib/python3.11/site-packages/pika/spec.py",
    "a missing package": "dpkg --remove python3.11-venv",
}


@pytest.mark.parametrize("name", [BY_ANSIBLE, BY_PYINFRA])
@pytest.mark.parametrize("drift", DRIFTS)
def test_each_engine_mends_what_has_drifted(pair: Pair, drift: str, name: str) -> None:
    before = pair.listing(name)
    pair.run(name, DRIFTS[drift])
    assert pair.listing(name) != before
    assert pair.mend(name)
    pair.run(name, "rm -rf /app/releases/other")
    assert pair.listing(name) == before
    # The process has to run the release that is there, not one that was replaced while it ran.
    running = pair.run(name, "readlink /proc/$(systemctl show dispatch --property=MainPID --value)/cwd")
    assert running == pair.run(name, "readlink /app/current")


def test_a_preview_names_what_has_drifted_and_changes_nothing(pair: Pair) -> None:
    before = pair.listing(BY_PYINFRA)
    pair.run(BY_PYINFRA, "echo '# mine' >> /usr/bin/dispatch && chmod 0755 /etc/dispatch/credentials")
    drifted = pair.listing(BY_PYINFRA)
    preview = pair.pyinfra("--dry", "--diff", "--limit", BY_PYINFRA)
    assert preview.planned == {
        "Runbook steps 5 and 6, switch to what is new, if it works (batch 1)": [BY_PYINFRA],
    }
    assert "-# mine" in preview.output
    assert pair.listing(BY_PYINFRA) == drifted
    assert pair.mend(BY_PYINFRA)
    assert pair.listing(BY_PYINFRA) == before


def test_a_wrong_password_is_refused_in_the_same_words_and_changes_nothing(pair: Pair, tmp_path: Path) -> None:
    wrong = tmp_path / "hosts.yml"
    wrong.write_text(pair.inventory.read_text().replace(pair.password, "wrong-one"))
    before = {name: pair.listing(name) for name in (BY_ANSIBLE, BY_PYINFRA)}
    by_ansible = playbook("dispatch", "--limit", BY_ANSIBLE, inventory=wrong)
    by_pyinfra = deploy(wrong, "--yes", "--limit", BY_PYINFRA)
    for run in (by_ansible, by_pyinfra):
        assert run.code != 0
        assert "nothing that is live has changed" in run.output
        assert "refuses the credentials of user roboshop" in run.output
        assert "wrong-one" not in run.output
    assert {name: pair.listing(name) for name in before} == before


def test_an_unsupported_system_is_refused_in_the_same_words(pair: Pair) -> None:
    systems = {"Slackware-15": {"interpreter": "/usr/bin/python3.9", "packages": []}}
    variable = json.dumps({"python_runtime_systems": systems})
    by_ansible = playbook("dispatch", "--limit", BY_ANSIBLE, "-e", variable, inventory=pair.inventory)
    data = f"python_runtime_systems={json.dumps(systems)}"
    by_pyinfra = deploy(pair.inventory, "--yes", "--limit", BY_PYINFRA, "--data", data)
    for run in (by_ansible, by_pyinfra):
        assert run.code != 0
        assert "is not a supported system. Supported: Slackware-15" in " ".join(run.output.split())


def test_an_artifact_by_url_becomes_the_same_release(pair: Pair, newer: Path) -> None:
    put(pair.client.containers.get(BROKER), "/srv", {newer.name: newer.read_bytes()})
    pair.run(BROKER, "systemd-run --quiet --unit=artifacts python3 -m http.server 80 --directory /srv")
    digest = hashlib.sha256(newer.read_bytes()).hexdigest()
    url = f"http://{BROKER}/{newer.name}"
    pair.ansible("--limit", BY_ANSIBLE, "-e", f"dispatch_artifact={url} dispatch_artifact_sha256={digest}")
    data = ("--data", f"dispatch_artifact={url}", "--data", f"dispatch_artifact_sha256={digest}")
    assert pair.pyinfra("--yes", "--limit", BY_PYINFRA, *data).changed
    assert digest[:12] in pair.run(BY_PYINFRA, "readlink /app/current")
    assert pair.listing(BY_PYINFRA) == pair.listing(BY_ANSIBLE)
    assert pair.pyinfra("--yes", *data).changed == {}


def test_pyinfra_provisions_a_host_of_the_rhel_family(pair: Pair, tmp_path: Path) -> None:
    try:
        tag = image.ensure(pair.client, "el9-facsimile")
    except LabError as error:
        pytest.skip(str(error))
    lab = replace(pair.lab, hosts=(*pair.lab.hosts, Host(EL9, "dispatch", 22403)))
    lab.up(pair.client, tag)
    inventory = listed(lab, tmp_path / "hosts.yml", pair.variables)
    first = deploy(inventory, "--yes", "--limit", EL9)
    assert first.code == 0, first.output
    assert len(first.changed) == 5, first.changed
    assert pair.run(EL9, "systemctl is-active dispatch") == "active"
    second = playbook("dispatch", "--limit", EL9, inventory=inventory)
    assert (second.code, second.changed) == (0, 0), second.output


def test_a_host_that_can_t_be_reached_stops_the_run(pair: Pair, tmp_path: Path) -> None:
    one_away = tmp_path / "hosts.yml"
    one_away.write_text(pair.inventory.read_text().replace('"ansible_port": 22401', '"ansible_port": 1'))
    assert '"ansible_port": 1,' in one_away.read_text()
    run = deploy(one_away, "--yes")
    assert run.code != 0
    assert f"[{BY_ANSIBLE}]" in run.output
    assert "Could not connect" in run.output
    assert "Starting operation" not in run.output
