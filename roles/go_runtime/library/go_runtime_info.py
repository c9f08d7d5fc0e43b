#!/usr/bin/python
"""Says what the host's distribution calls its Go."""

from __future__ import annotations

DOCUMENTATION = r"""
module: go_runtime_info
short_description: Say what the host's distribution calls its Go
description:
  - Looks the host up in a table of systems, by its os-release(5), and fails where it is not there.
  - Changes nothing.
options:
  systems:
    description:
      - The table. A key is C(<ID>-<major version>) of os-release(5), the system's own or that of one it is like.
      - A value has C(compiler), an absolute path, and C(packages), a list. C(version) is the compiler's major and minor
        version where the distribution keeps one for its whole life; elsewhere dnf is asked.
    type: dict
    required: true
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Find out what this system calls its Go
  go_runtime_info:
    systems:
      debian-12: {compiler: /usr/bin/go, version: "1.19", packages: [golang-go]}
  register: go
"""

RETURN = r"""
compiler:
  description: Absolute path of the compiler.
  returned: success
  type: str
version:
  description: The major and minor version of the compiler, or of the one that the packages would bring.
  returned: success
  type: str
packages:
  description: The packages that bring it.
  returned: success
  type: list
manager:
  description: What installs packages on this system, C(apt) or C(dnf).
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.go_version import GoVersionError
from ansible.module_utils.runtime_systems import UnsupportedSystemError, this_system


def main() -> None:
    module = AnsibleModule({"systems": {"type": "dict", "required": True}}, supports_check_mode=True)
    try:
        runtime = this_system(module.params["systems"], "go")
    except (UnsupportedSystemError, GoVersionError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **runtime.as_dict())


if __name__ == "__main__":
    main()
