#!/usr/bin/python
"""Makes sure of the user, permissions, virtual host and policies RoboShop's services need on their broker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_objects
short_description: Make sure of the user, the virtual host, the permissions and the policies on a RabbitMQ broker
description:
  - Compares what is wanted with C(rabbitmqctl export_definitions) and runs the commands of C(rabbitmqctl) that are due.
  - The password goes to C(rabbitmqctl) by standard input, and only where it has to change.
  - Other users, virtual hosts and policies are left alone.
options:
  user:
    description: The user RoboShop's services log in as.
    type: str
    required: true
  password:
    description: Its password.
    type: str
    required: true
  tags:
    description: Its tags.
    type: list
    elements: str
    required: true
  vhost:
    description: The virtual host the user may use.
    type: str
    required: true
  permissions:
    description: Regular expressions of the names the user may configure, write and read.
    type: dict
    required: true
  policies:
    description: Policies of the virtual host, each with name, pattern, definition and, unless it is queues, apply_to.
    type: list
    elements: dict
    required: true
  without_guest:
    description: Whether the user guest is removed.
    type: bool
    required: true
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
    user: roboshop
    password: "{{ rabbitmq_password }}"
    tags: [monitoring]
    vhost: /
    permissions: {configure: ^orders$, write: '^(orders|amq\.default)$', read: ^orders$}
    policies: []
    without_guest: true
"""

RETURN = r"""
steps:
  description: What was changed, or in check mode would be, in the order it is done.
  returned: success
  type: list
  elements: str
"""

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_definitions import Wanted, password_fits, shown, steps, user_of
from ansible.module_utils.rabbitmq_host import LOCALE, RefusedError, unreachable


def main() -> None:
    module = AnsibleModule(
        {
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "tags": {"type": "list", "elements": "str", "required": True},
            "vhost": {"type": "str", "required": True},
            "permissions": {"type": "dict", "required": True},
            "policies": {"type": "list", "elements": "dict", "required": True},
            "without_guest": {"type": "bool", "required": True},
        },
        supports_check_mode=True,
    )
    policies = [{"apply_to": "queues", **policy} for policy in module.params["policies"]]
    wanted = Wanted(**{**module.params, "policies": policies})
    try:
        result = settle(Broker(module, wanted.password), wanted, module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(**result)


class Broker:
    """The host's own node, by way of rabbitmqctl."""

    def __init__(self, module: Any, secret: str) -> None:
        self._module, self._secret = module, secret

    def definitions(self) -> dict[str, Any]:
        """Return the broker's definitions. Raises RefusedError."""
        return dict(json.loads(self.ctl(["--quiet", "export_definitions", "-"])))

    def accepts(self, user: str, password: str) -> bool:
        """Return whether the broker lets the user in with the password."""
        return self._run(["authenticate_user", user], password)[0] == 0

    def ctl(self, words: list[str], password: str | None = None) -> str:
        """Run a command of rabbitmqctl; return what it printed. Raises RefusedError with what RabbitMQ says."""
        code, output, error = self._run(words, password)
        if code:
            said = (error.strip() or output.strip()).replace(self._secret, "********")
            command = next(word for word in words if not word.startswith("-"))
            raise RefusedError(unreachable(said) or f"rabbitmqctl {command} failed. RabbitMQ says: {said}")
        return output

    def _run(self, words: list[str], password: str | None) -> tuple[int, str, str]:
        # From RabbitMQ 3.11 on, a password is read from standard input only where no argument is superfluous, and
        # --quiet is one.
        code, output, error = self._module.run_command(["rabbitmqctl", *words], data=password, environ_update=LOCALE)
        return code, output, error


def settle(broker: Broker, wanted: Wanted, check_mode: bool) -> dict[str, Any]:
    """Make the broker what is wanted, and return the module's result. Raises RefusedError."""
    definitions = broker.definitions()
    user = user_of(definitions, wanted.user)
    fits = password_fits(wanted.password, user) if user else False
    if fits is None:
        fits = broker.accepts(wanted.user, wanted.password)
    due = list(steps(wanted, definitions, fits))
    if not check_mode:
        for step in due:
            broker.ctl(step.words, step.password)
        if any(step.password for step in due) and not broker.accepts(wanted.user, wanted.password):
            raise RefusedError(
                f"RabbitMQ took the password of {wanted.user} and does not let the user in with it. Choose one of "
                "letters, digits and punctuation, for example from: openssl rand -hex 16"
            )
    before, after = shown(wanted, definitions)
    return {"changed": bool(due), "steps": [step.what for step in due], "diff": {"before": before, "after": after}}


if __name__ == "__main__":
    main()
