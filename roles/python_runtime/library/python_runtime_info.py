#!/usr/bin/python
"""Says what the host's distribution calls its Python."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_runtime_info
short_description: Say what the host's distribution calls its Python
description:
  - Looks the host up in a table of systems, by its os-release(5), and fails where it is not there.
  - Changes nothing.
options:
  systems:
    description:
      - The table. A key is C(<ID>-<major version>) of os-release(5), the system's own or that of one it is like.
      - A value has C(interpreter), an absolute path that names the version, and the lists C(packages) and C(toolchain).
    type: dict
    required: true
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Find out what this system calls its Python
  python_runtime_info:
    systems:
      debian-12: {interpreter: /usr/bin/python3.11, packages: [python3.11-venv]}
  register: python
"""

RETURN = r"""
interpreter:
  description: Absolute path of the interpreter.
  returned: success
  type: str
packages:
  description: The packages that bring it.
  returned: success
  type: list
toolchain:
  description: The packages that build what has no wheel for it.
  returned: success
  type: list
manager:
  description: What installs packages on this system, C(apt) or C(dnf).
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.runtime_systems import UnsupportedSystemError, this_system


def main() -> None:
    module = AnsibleModule({"systems": {"type": "dict", "required": True}}, supports_check_mode=True)
    try:
        runtime = this_system(module.params["systems"])
    except (UnsupportedSystemError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **runtime.as_dict())


if __name__ == "__main__":
    main()
