#!/usr/bin/python
"""Tells what RabbitMQ's node on a host is: its name, its cluster, what it has of its own. It changes nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_node
short_description: Tell what RabbitMQ's node on a host is, and whether the host can reach the others of its cluster
description:
  - Before RabbitMQ is installed, the name is the one that its node will have.
  - It changes nothing.
options:
  cookie:
    description: The Erlang cookie that the node is to have.
    type: str
    required: true
  tls:
    description: Whether the nodes are to speak to each other in TLS.
    type: bool
    default: false
  peers:
    description: Names by which this host has to reach the hosts of the other nodes.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
author: RoboShop
"""

EXAMPLES = r"""
- name: Ask the host's node
  rabbitmq_node:
    cookie: "{{ lookup('ansible.builtin.file', 'tls/erlang.cookie') }}"
"""

RETURN = r"""
node:
  description: The node's name.
  returned: success
  type: str
running:
  description: Whether the node runs.
  returned: success
  type: bool
members:
  description: The members of its cluster, itself included; none where it never ran.
  returned: success
  type: list
  elements: str
down:
  description: Those of them that it does not see running.
  returned: success
  type: list
  elements: str
partitions:
  description: Which nodes can't see which.
  returned: success
  type: list
  elements: str
queues:
  description: Its queues, while it is a cluster of its own.
  returned: success
  type: list
  elements: str
cookie:
  description: Whether its Erlang cookie is the wanted one (V(same)), another (V(other)) or not there (V(none)).
  returned: success
  type: str
tls:
  description: Whether the nodes are to speak to each other in TLS, as I(tls) says.
  returned: success
  type: bool
switches_tls:
  description: Whether that is another way than the one in which it speaks now.
  returned: success
  type: bool
unresolved:
  description: Of I(peers) those that this host does not reach, and why.
  returned: success
  type: dict
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_cluster import COOKIE, queues, remembered, status, unresolved
from ansible.module_utils.rabbitmq_host import LOCALE, Host, Run
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule(
        {
            "cookie": {"type": "str", "required": True, "no_log": True},
            "tls": {"type": "bool", "default": False},
            "peers": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )

    run = partial(module.run_command, environ_update=LOCALE)
    try:
        found = look(Host(run), run, module.params["cookie"], module.params["tls"])
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(changed=False, unresolved=unresolved(module.params["peers"]), **found)


def look(host: Any, run: Run, cookie: str, tls: bool = False) -> dict[str, Any]:
    """Return what the node is. Raises RefusedError where it runs and does not answer."""
    found: dict[str, Any] = {"node": host.node, "running": host.running, "partitions": [], "queues": [], "down": []}
    found.update(cookie=_cookie(cookie), tls=tls, switches_tls=host.node_tls != tls)
    if found["running"]:
        told = status(run)
        found["members"], found["down"], found["partitions"] = told.members, told.down, told.partitions
        found["queues"] = queues(run) if len(told.members) == 1 else []
    else:
        found["members"] = remembered(host.data_directory, host.node)
        found["queues"] = host.abandoned_queues if len(found["members"]) < 2 else []
    return found


def _cookie(wanted: str) -> str:
    try:
        return "same" if COOKIE.read_text().strip() == wanted else "other"
    except FileNotFoundError:
        return "none"


if __name__ == "__main__":
    main()
