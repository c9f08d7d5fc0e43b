#!/usr/bin/python
"""Takes a primary out of service, and has one of its replicas take writes in its place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_promotion
short_description: Take a primary out of service, and have one of its replicas take writes in its place
description:
  - Run on the servers in the order of the steps. A step that has been taken already changes nothing.
  - A primary that runs is taken out of service only where the replica streams from it, so that it has all orders then.
options:
  name:
    description: The replica's name.
    type: str
    required: true
  step:
    description:
      - C(check) sees, on the replica, that it is one.
      - C(stand_down) stops a primary for good; a replica is left alone.
      - C(promote) has the replica take writes.
    type: str
    choices: [check, stand_down, promote]
    required: true
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Have this replica take writes
  postgresql_promotion:
    name: db-2
    step: promote
"""

RETURN = r"""#"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.postgresql_host import Host
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule(
        {
            "name": {"type": "str", "required": True},
            "step": {"type": "str", "choices": ["check", "stand_down", "promote"], "required": True},
        },
        supports_check_mode=True,
    )

    steps = {"check": check, "stand_down": stand_down, "promote": promote}
    try:
        changed = steps[module.params["step"]](Host(module.run_command), module.params["name"], module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(changed=changed)


def check(host: Any, name: str, _: bool) -> bool:
    """See that the server runs; one that takes writes has been promoted already. Raises RefusedError."""
    if host.cluster is None or not host.running:
        raise RefusedError(
            f"PostgreSQL does not run on {name}, so it can't be promoted. Start it: systemctl start postgresql"
        )
    return False


def stand_down(host: Any, name: str, check_mode: bool) -> bool:
    """Stop a primary for good, where the replica has what it has. Raises RefusedError."""
    if host.cluster is None or host.cluster.standby or not host.running:
        return False
    streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = "
    if host.sql(f"{streaming}$${name}$$") == "0":
        raise RefusedError(
            f"{name} does not stream from this primary, which runs, so that it would lack orders. See why it doesn't "
            "(its log says), or stop this one first: systemctl stop postgresql; nothing has changed."
        )
    if not check_mode:
        host.stand_down()
    return True


def promote(host: Any, _: str, check_mode: bool) -> bool:
    """Have a replica take writes. Raises RefusedError."""
    if not host.cluster.standby:
        return False
    if not check_mode:
        host.promote()
    return True


if __name__ == "__main__":
    main()
