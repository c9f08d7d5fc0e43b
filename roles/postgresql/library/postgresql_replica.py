#!/usr/bin/python
"""Makes a host's PostgreSQL a copy of its primary, where it is none."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_replica
short_description: Make a host's PostgreSQL a copy of its primary, where it is none
description:
  - A server that is a replica already is left alone. M(postgresql_configuration) then starts it.
  - The primary is copied beside what the server has, which goes only once the copy stands.
options:
  primary:
    description: Address or name of the primary.
    type: str
    required: true
  user:
    description: The role to log in to it as.
    type: str
    required: true
  password:
    description: Its password.
    type: str
    required: true
  ca:
    description: PEM text of the CA that vouches for the primary.
    type: str
    required: true
  rebuild:
    description: Whether to copy the primary anew, so that what this server alone has is lost.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Copy the primary where that has not been done
  postgresql_replica:
    primary: 10.0.4.11
    user: replicator
    password: "{{ postgresql_replication_password }}"
    ca: "{{ lookup('file', 'tls/ca.pem', rstrip=false) }}"
"""

RETURN = r"""#"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.postgresql_host import USER, Host
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule(
        {
            "primary": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "ca": {"type": "str", "required": True},
            "rebuild": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )

    try:
        changed = settle(Host(module.run_command), module.params, module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(changed=changed)


def settle(host: Any, wanted: dict[str, Any], check_mode: bool) -> bool:
    """Copy the primary where the server is no replica, or is to be copied anew; return whether. Raises RefusedError."""
    cluster = host.cluster
    if cluster is None:
        raise RefusedError("This host has no PostgreSQL, although its package is installed. pg_lsclusters")
    if (cluster.standby and not wanted["rebuild"]) or not host.booted:
        return False
    if check_mode:
        return True
    with tempfile.NamedTemporaryFile("w", prefix="postgresql-ca-") as ca:
        ca.write(wanted["ca"])
        ca.flush()
        shutil.chown(Path(ca.name), USER)
        where = {
            "host": wanted["primary"],
            "user": wanted["user"],
            "dbname": "replication",
            "sslmode": "verify-full",
            "sslrootcert": ca.name,
            "connect_timeout": "10",
        }
        host.copy_primary(where, wanted["password"])
    return True


if __name__ == "__main__":
    main()
