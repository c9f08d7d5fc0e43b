#!/usr/bin/python
"""Makes a host's RabbitMQ a member of its cluster, and sees that the cluster is whole."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_membership
short_description: Make a host's RabbitMQ a member of its cluster, and see that the cluster is whole
description:
  - A node that is no member yet joins, if it has no queues of its own. What else it has it then loses.
  - With I(whole), all members have to run, with neither partitions nor alarms; a quorum queue that has fewer replicas
    than it could have gets them.
options:
  seed:
    description: The node whose cluster it is.
    type: str
    required: true
  members:
    description: The nodes of the cluster.
    type: list
    elements: str
    required: true
  whole:
    description: Whether the cluster has to be whole, because this node is the last to be seen to.
    type: bool
    default: false
  rebalance:
    description: With I(whole), whether the leaders of quorum queues are spread over the nodes again.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
author: RoboShop
"""

EXAMPLES = r"""
- name: Join the cluster
  rabbitmq_membership:
    seed: rabbit@broker-1
    members: [rabbit@broker-1, rabbit@broker-2, rabbit@broker-3]
"""

RETURN = r"""
steps:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_cluster import grow, join, rebalance, refuse_unhealthy, status
from ansible.module_utils.rabbitmq_host import LOCALE, Host, Run
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule(
        {
            "seed": {"type": "str", "required": True},
            "members": {"type": "list", "elements": "str", "required": True},
            "whole": {"type": "bool", "default": False},
            "rebalance": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )

    run = partial(module.run_command, environ_update=LOCALE)
    try:
        steps = settle(Host(run).node, run, module.params, module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(changed=bool(steps), steps=steps)


def settle(node: str, run: Run, wanted: dict[str, Any], check_mode: bool) -> list[str]:
    """Make the node a member, and return what was done. Raises RefusedError."""
    found, steps = status(run), []
    if node != wanted["seed"] and wanted["seed"] not in found.members:
        steps.append(f"join {wanted['seed']}")
        if check_mode:
            return steps
        join(run, node, wanted["seed"])
        found = status(run)
    if not wanted["whole"] or check_mode:
        return steps
    refuse_unhealthy(found)
    if found.members != sorted(wanted["members"]):
        raise RefusedError(
            f"The cluster has the nodes {', '.join(found.members)}, and not {', '.join(sorted(wanted['members']))}, "
            "which the inventory says."
        )
    if found.alarms:
        raise RefusedError(f"The cluster has an alarm, and takes no orders meanwhile: {'; '.join(found.alarms)}")
    steps += grow(run, found.members, check_mode)
    if wanted["rebalance"]:
        rebalance(run)
    return steps


if __name__ == "__main__":
    main()
