#!/usr/bin/python
"""Gives a host's PostgreSQL its settings, its rules of who may log in and its certificates, or leaves it as it was."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_configuration
short_description: Give a host's PostgreSQL its settings and certificates, or leave it running as it was
description:
  - Settings that the server does not take are refused before anything changes, by the server's own program.
  - Where the files differ, the previous ones are kept and the new ones placed. The server reads them anew, and is
    restarted only where a setting asks for it. If it does not start, or is no replica as it is to be, the previous
    files are put back, it is restarted with those, and the module fails with the reason.
  - Where no systemd runs, as while an image is made, the files are placed and nothing is started.
options:
  settings:
    description: Text of the file of settings.
    type: str
    required: true
  database:
    description: The database that clients may use.
    type: str
    required: true
  user:
    description: The role that clients log in as.
    type: str
    required: true
  owner:
    description: The role that owns the database, as which root may log in on the socket.
    type: str
    required: true
  clients:
    description: Addresses, networks and names from where they may log in.
    type: list
    elements: str
    required: true
  replication_user:
    description: The role that replicas log in as.
    type: str
    default: ""
  replication_password:
    description: Its password.
    type: str
    default: ""
  nodes:
    description: Addresses and names of all servers, from where replicas may log in.
    type: list
    elements: str
    default: []
  name:
    description: The server's own name, by which a primary knows its replicas.
    type: str
    required: true
  primary:
    description: Address or name of the server that this one is a replica of; empty for a primary.
    type: str
    default: ""
  ca:
    description: PEM text of the CA's certificate.
    type: str
    required: true
  certificate:
    description: PEM text of the server's certificate.
    type: str
    required: true
  key:
    description: PEM text of its key.
    type: str
    required: true
  only_check:
    description: Refuse what has to be refused, change nothing, and say nothing of what differs.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Let one host use the database dispatch
  postgresql_configuration:
    settings: |
      shared_buffers = '256MB'
    database: dispatch
    user: dispatch
    owner: dispatch_owner
    clients: [10.0.2.11]
    name: db-1
    ca: "{{ lookup('file', 'tls/ca.pem', rstrip=false) }}"
    certificate: "{{ lookup('file', 'tls/db-1.pem', rstrip=false) }}"
    key: "{{ lookup('file', 'tls/db-1.key', rstrip=false) }}"
"""

RETURN = r"""
changed_files:
  description: Paths that differed from what is wanted.
  returned: success
  type: list
  elements: str
restarted:
  description: Whether the server was started or restarted; in check mode, whether it has to be started.
  returned: success
  type: bool
running:
  description: Whether the server runs.
  returned: success
  type: bool
"""

import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.postgresql_access import HEADER, UnresolvedError, conninfo, hba, ident
from ansible.module_utils.postgresql_host import Cluster, Host
from ansible.module_utils.server_files import (
    File,
    Previous,
    RefusedError,
    diff,
    differing,
    directory,
    fall_back,
    group_of,
    place,
)


def main() -> None:
    module = AnsibleModule(
        {
            "settings": {"type": "str", "required": True},
            "database": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "owner": {"type": "str", "required": True},
            "clients": {"type": "list", "elements": "str", "required": True},
            "replication_user": {"type": "str", "default": ""},
            "replication_password": {"type": "str", "default": "", "no_log": True},
            "nodes": {"type": "list", "elements": "str", "default": []},
            "name": {"type": "str", "required": True},
            "primary": {"type": "str", "default": ""},
            "ca": {"type": "str", "required": True},
            "certificate": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
            "only_check": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )

    try:
        result = settle(Host(module.run_command), module.params, module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    except UnresolvedError as unresolved:
        module.fail_json(msg=f"{unresolved}; nothing has changed.")
    module.exit_json(**result)


def files(cluster: Cluster, wanted: dict[str, Any], group: int) -> list[File]:
    """Return every file of the server's that the role sees to, as it is wanted."""
    etc = cluster.configuration
    tls, access, identity = etc / "tls", etc / "roboshop_hba.conf", etc / "roboshop_ident.conf"

    def ours(path: Path, text: str, secret: bool = False) -> File:
        return File(path, text.encode() or None, 0o640, 0, group, secret)

    fixed = {
        "ssl": "on", "ssl_ca_file": tls / "ca.pem", "ssl_cert_file": tls / "server.pem",
        "ssl_key_file": tls / "server.key", "hba_file": access, "ident_file": identity,
        "cluster_name": wanted["name"],
    }  # fmt: skip
    lines = "".join(f"{name} = '{value}'\n" for name, value in fixed.items())
    replica = conninfo(wanted, str(tls / "ca.pem")) if wanted["primary"] else ""
    return [
        *_including(etc / "postgresql.conf"),
        ours(etc / "conf.d" / "50-roboshop.conf", wanted["settings"]),
        ours(etc / "conf.d" / "51-roboshop-access.conf", HEADER + lines),
        ours(etc / "conf.d" / "52-roboshop-replica.conf", replica, secret=True),
        ours(access, hba(wanted)),
        ours(identity, ident(wanted)),
        ours(tls / "ca.pem", wanted["ca"]),
        ours(tls / "server.pem", wanted["certificate"]),
        ours(tls / "server.key", wanted["key"], secret=True),
    ]


def _including(path: Path) -> list[File]:
    """Return the server's main file with a line that includes conf.d, which the RHEL family's lacks."""
    if not path.exists():
        return []
    text, status = path.read_text(errors="surrogateescape"), path.stat()
    if not re.search(r"^\s*include_dir\s*=?\s*'conf\.d'", text, re.MULTILINE):
        text = f"{text.rstrip()}\n\n# Added by the role postgresql.\ninclude_dir = 'conf.d'\n"
    content = text.encode(errors="surrogateescape")
    return [File(path, content, status.st_mode & 0o7777, status.st_uid, status.st_gid)]


def settle(host: Any, wanted: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Make the host what is wanted, and return the module's result. Raises RefusedError."""
    cluster = host.cluster
    nothing = {"changed": False, "changed_files": [], "restarted": False, "running": host.running}
    if cluster is None or not cluster.made:
        if wanted["only_check"] or check_mode:
            return nothing
        raise RefusedError("This host has no cluster of PostgreSQL, which its package makes on Debian. pg_lsclusters")
    group = group_of("postgres")
    due = differing(files(cluster, wanted, group))
    settings = [file for file in due if file.path.name == "postgresql.conf" or file.path.parent.name == "conf.d"]
    if settings:
        host.refuse_bad_settings(settings)
    if wanted["only_check"]:
        return nothing
    previous = Previous(cluster.configuration / ".roboshop-previous.json")
    starts = host.booted and not host.running
    result = {
        "changed": bool(due) or starts or (host.booted and previous.stands),
        "changed_files": [str(file.path) for file in due],
        "restarted": starts,
        "running": host.running,
        "diff": diff(due),
    }
    if check_mode or not result["changed"]:
        return result
    for path in {file.path.parent for file in due if file.content is not None} - {cluster.configuration}:
        directory(path, group)
    if not host.booted:
        for file in due:
            place(file)
        return result
    restarted = switch(host, due, previous, bool(wanted["primary"]))
    return {**result, "restarted": restarted, "running": True}


def switch(host: Any, due: list[File], previous: Previous, replica: bool) -> bool:
    """Place the files and put them in force, or put everything back; return whether that took a restart.

    Raises RefusedError with the reason.
    """
    ran = host.running
    previous.replace(due)
    if ran and not host.reread() and not host.out_of_role(replica):
        previous.forget()
        return False
    reason = host.restart(replica)
    if not reason:
        previous.forget()
        return True
    # What it was before need not be what it is to be now.
    raise fall_back("PostgreSQL", previous, ran, reason, lambda: host.restart(host.cluster.standby))


if __name__ == "__main__":
    os.umask(0o077)
    main()
