#!/usr/bin/python
"""Stops a host's RabbitMQ, once the other nodes of its cluster can do without it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_stop
short_description: Stop a host's RabbitMQ, once the other nodes of its cluster can do without it
description:
  - Before its packages are replaced, RabbitMQ is stopped. A member of a cluster is stopped only where all others run
    and every quorum queue has a majority without it. It hands over its clients and leaders first.
options: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
author: RoboShop
"""

EXAMPLES = r"""
- name: Stop the node
  rabbitmq_stop:
"""

RETURN = r"""
stopped:
  description: Whether RabbitMQ ran, and was stopped, or in check mode would be.
  returned: success
  type: bool
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_cluster import Member
from ansible.module_utils.rabbitmq_host import LOCALE
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule({}, supports_check_mode=True)

    run = partial(module.run_command, environ_update=LOCALE)
    try:
        stopped = settle(Member(run), module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(changed=stopped, stopped=stopped)


def settle(host: Any, check_mode: bool) -> bool:
    """Stop the host's node; return whether it ran. Raises RefusedError where the others can't do without it."""
    ran = bool(host.running)
    if ran and not check_mode:
        host.step_aside()
        host.stop()
    return ran


if __name__ == "__main__":
    main()
