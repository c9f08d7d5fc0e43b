"""The role app_account on this machine, to whose accounts a mount namespace of its own puts an end afterwards."""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
# A record that nss-systemd(8) reads without a daemon. Such a user is to getent(1) as one of LDAP is.
RECORD = {"userName": "roboshop", "uid": 6001, "gid": 100, "disposition": "regular", "shell": "/bin/bash"}
needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0,
    reason="only root may mount, and not in every container",
)


def accounts(tmp_path: Path, etc: Path) -> tuple[str, str]:
    """Run the role twice, and then its removal, with these files in /etc; return what was said, and the user's ids."""
    here, playbook = tmp_path / "here", tmp_path / "playbook.yml"
    here.mkdir()
    role = {"ansible.builtin.import_role": {"name": "app_account"}}
    show = {"ansible.builtin.command": "id roboshop", "register": "shown", "changed_when": False}
    tell = {"ansible.builtin.debug": {"msg": "ids: {{ shown.stdout }}"}}
    remove = {"ansible.builtin.import_role": {"name": "app_account", "tasks_from": "remove"}}
    plays = [
        {"hosts": "all", "gather_facts": False, "tasks": tasks}
        for tasks in ([role, show, tell], [{**role, "name": "Again"}], [remove])
    ]
    playbook.write_text(yaml.safe_dump(plays))
    command = [
        *("unshare", "--mount", str(Path(__file__).with_name("etc_of_its_own.sh")), str(here), str(etc)),
        *(sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local"),
        *("-e", f"ansible_python_interpreter={sys.executable}", "-e", f"app_account_home={here}/app", str(playbook)),
    ]
    environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(ROOT / "roles")}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout, done.stdout.partition("ids: ")[2].partition("\n")[0]


@needs_mounts
def test_a_new_user_gets_the_group_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "group").write_text(f"{Path('/etc/group').read_text()}roboshop:x:4711:\n")
    etc = tmp_path / "etc"
    etc.mkdir()
    (tmp_path / "group").rename(etc / "group")
    _, ids = accounts(tmp_path, etc)
    assert "gid=4711(roboshop)" in ids


@needs_mounts
@pytest.mark.skipif(not ctypes.util.find_library("nss_systemd"), reason="without nss-systemd(8) no user is foreign")
def test_a_foreign_user_is_used_as_it_is_and_stays(tmp_path: Path) -> None:
    (tmp_path / "etc" / "userdb").mkdir(parents=True)
    (tmp_path / "etc" / "userdb" / "roboshop.user").write_text(json.dumps(RECORD))
    (tmp_path / "etc" / "nsswitch.conf").write_text("passwd: files systemd\ngroup: files\nshadow: files\n")
    said, ids = accounts(tmp_path, tmp_path / "etc")
    assert "uid=6001 " in ids
    assert "skipped=3 " in said, said  # its entry is neither corrected, twice, nor removed
