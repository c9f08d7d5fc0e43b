#!/usr/bin/python
"""Makes quorum queues of the order queue and of those that Dispatch declares beside it, while a shop uses them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_quorum
short_description: Make quorum queues of the classic queues that a shop's orders pass through
description:
  - The order queue is deleted once it is empty and declared anew under its name. Meanwhile orders go into a queue
    beside it, from where C(dispatch move) brings them back. Where that fails, everything is put back.
  - Queues of Dispatch's own are replaced once they are empty.
options:
  vhost:
    description: The virtual host.
    type: str
    required: true
  queue:
    description: The order queue.
    type: str
    required: true
  address:
    description: Address at which the host's management API listens.
    type: str
    required: true
  seconds:
    description: For how long orders may go into the queue beside it, while Dispatch works off what is in the old one.
    type: int
    default: 60
  finish:
    description:
      - Instead of beginning, remove the queue beside it, which has to be empty, and replace the others.
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
- name: Make quorum queues of them
  rabbitmq_quorum:
    vhost: /
    queue: orders
    address: 127.0.0.1
"""

RETURN = r"""
replaced:
  description: Queues that are quorum queues now, or in check mode would be.
  returned: success
  type: list
  elements: str
left:
  description: Queues that were not empty, and are classic queues still.
  returned: success
  type: list
  elements: str
aside:
  description: The queue from where C(dispatch move) has to bring orders back, empty where there is none.
  returned: success
  type: str
undone:
  description: Why the order queue is as it was; empty where it is not.
  returned: success
  type: str
seconds:
  description: For how long orders went into the queue beside it.
  returned: success
  type: float
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_host import LOCALE
from ansible.module_utils.rabbitmq_migration import RETRY_SECONDS, Api, Migration
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule(
        {
            "vhost": {"type": "str", "required": True},
            "queue": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "seconds": {"type": "int", "default": 60},
            "finish": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    wanted = module.params

    run = partial(module.run_command, environ_update=LOCALE)
    migration = Migration(run, lambda password: Api(wanted["address"], password), wanted["vhost"], wanted["queue"])
    try:
        result = (finish if wanted["finish"] else begin)(migration, wanted["seconds"], module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(**result)


def nothing() -> dict[str, Any]:
    """Return the result where there is nothing to do."""
    return {"changed": False, "replaced": [], "left": [], "aside": "", "undone": "", "seconds": 0.0}


def begin(migration: Any, seconds: float, check_mode: bool) -> dict[str, Any]:
    """Make the order queue a quorum queue, and return the module's result. Raises RefusedError."""
    definitions, result = migration.look(), nothing()
    due, resumed = migration.due(definitions), migration.is_aside(definitions)
    if not due and not resumed:
        return result
    migration.refuse_unfit(definitions)
    if resumed or migration.queue in due:
        result.update(changed=True, aside=migration.aside)
    if check_mode:
        return {**result, "changed": True, "replaced": due}
    if resumed:
        with migration.admitted():
            migration.recover(definitions)
    elif migration.queue in due:
        with migration.admitted():
            undone, gap = migration.swap(definitions, seconds)
        result.update(undone=undone, seconds=round(gap, 2), replaced=[] if undone else [migration.queue])
    return result


def finish(migration: Any, _: float, check_mode: bool) -> dict[str, Any]:
    """Remove what orders waited in meanwhile, and replace the other queues once the order queue is one of them.

    Return the module's result. Raises RefusedError.
    """
    definitions, result = migration.look(), nothing()
    due, aside = migration.due(definitions), migration.is_aside(definitions)
    if not due and not aside:
        return result
    if migration.queue in due:
        result["left"], due = due, []
    result["changed"] = bool(due or aside)
    if check_mode or not result["changed"]:
        return {**result, "replaced": due}
    with migration.admitted():
        if aside and not migration.finish():
            raise RefusedError(
                f"Orders wait in {migration.aside}. On a host of Dispatch's: dispatch move {migration.aside}"
            )
        for name in due:
            # Orders leave a retry queue by themselves, dead letters their own only if somebody takes them out.
            patience = 0.0 if name.endswith(".dead") else RETRY_SECONDS
            done = migration.replace_empty(name, migration.own(definitions)[name], patience)
            result["replaced" if done else "left"].append(name)
        migration.settle_type()
    return result


if __name__ == "__main__":
    main()
