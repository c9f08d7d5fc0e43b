#!/usr/bin/python
"""Makes sure of the users, permissions, virtual host and policies RoboShop's services need on their broker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_objects
short_description: Make sure of the users, the virtual host, the permissions and the policies on a RabbitMQ broker
description:
  - Compares what is wanted with C(rabbitmqctl export_definitions) and runs the commands of C(rabbitmqctl) that are due.
  - Passwords go to C(rabbitmqctl) by standard input, and only where they have to change.
  - Other users, virtual hosts and policies are left alone.
options:
  users:
    description: The users. Without I(permissions), a user may use nothing in the virtual host.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The user's name.
        type: str
        required: true
      password:
        description: Its password.
        type: str
        required: true
      tags:
        description: Its tags, which say what it may do in the management API.
        type: list
        elements: str
        required: true
      permissions:
        description: Regular expressions of the names it may C(configure), C(write) and C(read).
        type: dict
  vhost:
    description: The virtual host they use.
    type: str
    required: true
  policies:
    description: Policies of the virtual host, each with name, pattern, definition, apply_to (queues) and priority (0).
    type: list
    elements: dict
    required: true
  without_guest:
    description: Whether the user guest is removed.
    type: bool
    required: true
  queue_type:
    description:
      - The type of new queues in the virtual host whose declaration names none; empty leaves it as it is.
      - It is left as it is, with a warning, while durable classic queues are there that their services could not
        declare any more.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Let RoboShop's services use the order queue
  rabbitmq_objects:
    users:
      - name: roboshop
        password: "{{ rabbitmq_password }}"
        tags: [monitoring]
        permissions: {configure: ^orders$, write: '^(orders|amq\.default)$', read: ^orders$}
    vhost: /
    policies: []
    without_guest: true
"""

RETURN = r"""
steps:
  description: What was changed, or in check mode would be, in the order it is done.
  returned: success
  type: list
  elements: str
classic:
  description: Durable classic queues that keep the virtual host from getting the queue type that is wanted.
  returned: success
  type: list
  elements: str
"""

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_definitions import (
    Step,
    User,
    Wanted,
    classic_queues,
    password_fits,
    queue_type,
    shown,
    steps,
    user_of,
)
from ansible.module_utils.rabbitmq_host import LOCALE, unreachable
from ansible.module_utils.server_files import RefusedError

USER = {
    "name": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "tags": {"type": "list", "elements": "str", "required": True},
    "permissions": {"type": "dict"},
}


def main() -> None:
    module = AnsibleModule(
        {
            "users": {"type": "list", "elements": "dict", "required": True, "options": USER},
            "vhost": {"type": "str", "required": True},
            "policies": {"type": "list", "elements": "dict", "required": True},
            "without_guest": {"type": "bool", "required": True},
            "queue_type": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    users = [User(**user) for user in module.params["users"]]
    policies = [{"apply_to": "queues", "priority": 0, **policy} for policy in module.params["policies"]]
    wanted = Wanted(
        users, module.params["vhost"], policies, module.params["without_guest"], module.params["queue_type"]
    )
    try:
        result = settle(Broker(module, [user.password for user in users]), wanted, module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    if result["classic"]:
        module.warn(
            f"{', '.join(result['classic'])} in the virtual host {wanted.vhost} live on one node of the cluster each, "
            "as classic queues do, and new queues go on doing so. playbooks/quorum.yml makes them quorum queues."
        )
    module.exit_json(**result)


class Broker:
    """The host's own node, by way of rabbitmqctl. Its secrets are masked in what it says."""

    def __init__(self, module: Any, secrets: list[str]) -> None:
        self._module, self._secrets = module, secrets

    def definitions(self) -> dict[str, Any]:
        """Return the broker's definitions. Raises RefusedError."""
        return dict(json.loads(self.ctl(["--quiet", "export_definitions", "-"])))

    def knows(self, user: User, definitions: dict[str, Any]) -> bool:
        """Return whether there is the user and its password is the one wanted."""
        found = user_of(definitions, user.name)
        fits = password_fits(user.password, found) if found else False
        if fits is None:
            return self._run(["authenticate_user", user.name], user.password)[0] == 0
        return fits

    def ctl(self, words: list[str], password: str | None = None) -> str:
        """Run a command of rabbitmqctl; return what it printed. Raises RefusedError with what RabbitMQ says."""
        code, output, error = self._run(words, password)
        if code:
            said = error.strip() or output.strip()
            for secret in self._secrets:
                said = said.replace(secret, "********")
            command = next(word for word in words if not word.startswith("-"))
            raise RefusedError(unreachable(said) or f"rabbitmqctl {command} failed. RabbitMQ says: {said}")
        return output

    def take(self, step: Step) -> None:
        """Take a step, in the way this version of rabbitmqctl knows. Raises RefusedError."""
        if step.otherwise and self._run(["help", step.words[0]], None)[0] != 0:
            self.ctl(step.otherwise)
        else:
            self.ctl(step.words, step.password)

    def _run(self, words: list[str], password: str | None) -> tuple[int, str, str]:
        # From RabbitMQ 3.11 on, a password is read from standard input only where no argument is superfluous, and
        # --quiet is one.
        code, output, error = self._module.run_command(["rabbitmqctl", *words], data=password, environ_update=LOCALE)
        return code, output, error


def settle(broker: Broker, wanted: Wanted, check_mode: bool) -> dict[str, Any]:
    """Make the broker what is wanted, and return the module's result. Raises RefusedError."""
    definitions = broker.definitions()
    due = list(steps(wanted, definitions, [user.name for user in wanted.users if broker.knows(user, definitions)]))
    if not check_mode:
        for step in due:
            broker.take(step)
        if any(step.password for step in due):
            refuse_altered(broker, wanted.users)
    before, after = shown(wanted, definitions)
    differs = wanted.queue_type not in ("", queue_type(definitions, wanted.vhost))
    return {
        "changed": bool(due),
        "steps": [step.what for step in due],
        "classic": classic_queues(definitions, wanted.vhost) if differs else [],
        "diff": {"before": before, "after": after},
    }


def refuse_altered(broker: Broker, users: list[User]) -> None:
    """Raise RefusedError where a user has another password than the one it was given."""
    definitions = broker.definitions()
    for user in users:
        # Not by authenticate_user alone, whose input rabbitmqctl would alter in the same way.
        if not broker.knows(user, definitions):
            raise RefusedError(
                f"rabbitmqctl gave {user.name} another password than the one it read. Choose one of letters, digits "
                "and punctuation, for example from: openssl rand -hex 16"
            )


if __name__ == "__main__":
    main()
