#!/usr/bin/python
"""Has a RabbitMQ cluster forget a node that is gone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_forget
short_description: Have a RabbitMQ cluster forget a node that is gone
description:
  - Takes the node out of every quorum queue, then out of the cluster. Run it on a host whose node runs.
  - A node that runs is refused, and, unless I(queues) is set, one on which classic queues live.
options:
  broker:
    description: The node, by its name or by its host's, as in V(rabbit@broker-3) or V(broker-3).
    type: str
    required: true
  queues:
    description: Whether the classic queues that live there are given up, with what waits in them.
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
- name: Forget a node
  rabbitmq_forget:
    broker: broker-3
"""

RETURN = r"""
members:
  description: The members that the cluster has then.
  returned: success
  type: list
  elements: str
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_cluster import classic_queues_on, ctl, status
from ansible.module_utils.rabbitmq_host import LOCALE, SERVICE, Run
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule(
        {"broker": {"type": "str", "required": True}, "queues": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )

    run = partial(module.run_command, environ_update=LOCALE)
    try:
        result = settle(run, module.params["broker"], module.params["queues"], module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(**result)


def settle(run: Run, broker: str, give_up: bool, check_mode: bool) -> dict[str, Any]:
    """Have the cluster forget the node, and return the module's result. Raises RefusedError."""
    found = status(run)
    node = next((name for name in found.members if broker in (name, name.partition("@")[2])), None)
    if node is None:
        if found.down:
            raise RefusedError(
                f"No member of the cluster is called {broker}; {', '.join(found.down)} is down. Members are "
                f"{', '.join(found.members)}."
            )
        return {"changed": False, "members": found.members}
    if node in found.up:
        raise RefusedError(
            f"{node} runs, and what it has would be gone. If it is to go, stop it first, on its host: systemctl "
            f"disable --now {SERVICE}"
        )
    if (lost := classic_queues_on(run, node)) and not give_up:
        raise RefusedError(
            f"{', '.join(lost)} live on {node} alone, and what waits there would be gone. Start it again and run "
            "playbooks/quorum.yml, or give them up: -e rabbitmq_forget_queues=true"
        )
    if not check_mode:
        ctl(run, "rabbitmq-queues", "shrink", node)
        ctl(run, "rabbitmqctl", "forget_cluster_node", node)
    return {"changed": True, "members": [name for name in found.members if name != node]}


if __name__ == "__main__":
    main()
