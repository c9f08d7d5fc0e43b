"""What the broker's user may use follows from the whole inventory, and the doctor grants the same."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dispatch_app import topology
from dispatch_app.settings import load

ROLE = Path(__file__).resolve().parents[3] / "roles" / "rabbitmq"


def granted(tmp_path: Path, dispatch_hosts: dict[str, dict[str, str]]) -> list[str]:
    """The patterns the role grants on a host `mq`: configure, write, read."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {"rabbitmq": {"hosts": {"mq": local}}, "dispatch": {"hosts": dispatch_hosts}}
    permissions = "{{ rabbitmq_names | rabbitmq_permissions | to_json }}"
    tasks = [
        *({"ansible.builtin.include_vars": str(ROLE / kind / "main.yml")} for kind in ("vars", "defaults")),
        {"ansible.builtin.copy": {"content": permissions, "dest": str(tmp_path / "granted")}},
    ]
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    (tmp_path / "play.json").write_text(json.dumps([{"hosts": "rabbitmq", "gather_facts": False, "tasks": tasks}]))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.json", "play.json"]
    plugins = {"ANSIBLE_FILTER_PLUGINS": str(ROLE / "filter_plugins")}
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **plugins}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    patterns: dict[str, str] = json.loads((tmp_path / "granted").read_text())
    return [patterns[kind] for kind in ("configure", "write", "read")]


@pytest.mark.parametrize(
    ("exchange", "queue"), [("robot-shop", "orders"), ("roboshop", "orders"), ("shop.paid", "orders (EU) [1]*")]
)
def test_the_doctor_s_fix_and_the_role_grant_the_same(exchange: str, queue: str, tmp_path: Path) -> None:
    settings = load(
        {
            "AMQP_HOST": "mq",
            "AMQP_PASS": "unused",
            "AMQP_VHOST": "the shop",
            "AMQP_EXCHANGE": exchange,
            "AMQP_QUEUE": queue,
        }
    )
    patterns = granted(tmp_path, {"host": {"dispatch_amqp_exchange": exchange, "dispatch_amqp_queue": queue}})
    command = ["rabbitmqctl", "set_permissions", "-p", "the shop", "roboshop", *patterns]
    assert shlex.split(topology.grant(settings)) == command


def test_names_that_only_some_hosts_of_dispatch_use_are_granted(tmp_path: Path) -> None:
    hosts = {"plain": {}, "eu": {"dispatch_amqp_queue": "orders-eu"}, "new": {"dispatch_amqp_exchange": "shop"}}
    own = r"(robot-shop|roboshop|orders|shop|orders-eu)(\..*)?"
    assert granted(tmp_path, hosts) == [f"^{own}$", rf"^({own}|amq\.default)$", f"^{own}$"]
