#!/usr/bin/python
"""Tells which RabbitMQ and Erlang a host has, and what to install to have the wanted ones. It installs nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_packages
short_description: Tell which RabbitMQ and Erlang a host has, and what to install to have the wanted ones
description:
  - A version that the package sources do not have, one that can't be reached from what is installed, an older one, and
    an Erlang that RabbitMQ does not support are refused.
  - So is an upgrade to another series where a stable feature flag is not enabled.
  - It installs nothing. It fetches apt's index anew, where something is to be installed.
options:
  manager:
    description: The package manager.
    type: str
    required: true
    choices: [apt, dnf]
  version:
    description: RabbitMQ's version, as its authors give it or the package's in full; empty for any.
    type: str
    default: ""
  erlang_version:
    description: Erlang's version, likewise.
    type: str
    default: ""
  refresh:
    description: Whether apt's index is fetched where something is to be installed.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
author: RoboShop
"""

EXAMPLES = r"""
- name: See what to install
  rabbitmq_packages:
    manager: apt
    version: 3.10.8-1.1+deb12u1
"""

RETURN = r"""
installed:
  description: The version of RabbitMQ's package that is installed, empty for none.
  returned: success
  type: str
version:
  description: RabbitMQ's version once I(due) is installed.
  returned: success
  type: str
series:
  description: The release series of that, such as V(3.10).
  returned: success
  type: str
due:
  description: What to install, as the package manager takes it.
  returned: success
  type: list
  elements: str
pins:
  description: Text of a file for C(/etc/apt/preferences.d) that holds apt to the wanted versions; empty for none.
  returned: success
  type: str
upgrade:
  description: Whether that replaces something that is installed.
  returned: success
  type: bool
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_flags import refuse_disabled
from ansible.module_utils.rabbitmq_host import LOCALE, SERVICE, Host, Run
from ansible.module_utils.rabbitmq_install import MANAGERS, crosses, plan
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule(
        {
            "manager": {"type": "str", "required": True, "choices": [*MANAGERS]},
            "version": {"type": "str", "default": ""},
            "erlang_version": {"type": "str", "default": ""},
            "refresh": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )

    run = partial(module.run_command, environ_update=LOCALE)
    try:
        found = look(Host(run), run, module.params)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(changed=False, **found)


def look(host: Any, run: Run, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return what the host has and what is to be installed. Raises RefusedError."""
    packages = MANAGERS[wanted["manager"]](run)
    found: dict[str, Any] = plan(packages, wanted["version"], wanted["erlang_version"], wanted["refresh"])
    if crosses(found) and host.booted:
        if not host.running:
            raise RefusedError(
                f"RabbitMQ {found['installed']} does not run, so nobody can tell whether {found['version']} would "
                f"start on what it leaves. Start it first: systemctl start {SERVICE}"
            )
        refuse_disabled(run, found["installed"], found["version"])
    return found


if __name__ == "__main__":
    main()
