#!/usr/bin/python
"""Says what an artifact on the host is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_artifact_info
short_description: Say what an artifact on the host is
description:
  - Reads a zip, and tells Python, Go source and a binary from each other by what stands at its root.
  - Changes nothing.
options:
  artifact:
    description: Path of the zip.
    type: path
    required: true
  name:
    description: Name of the service, which is also the name of a binary.
    type: str
    required: true
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Tell what the artifact is
  app_artifact_info:
    artifact: /var/cache/dispatch.zip
    name: dispatch
  register: artifact
"""

RETURN = r"""
kind:
  description: What the artifact is, C(python), C(go) or C(binary); an empty string where it is none of them.
  returned: success
  type: str
go:
  description: The version of Go that its C(go.mod) asks for, or an empty string.
  returned: success
  type: str
fault:
  description: Why the zip is no artifact, and what to do, or an empty string.
  returned: success
  type: str
"""

from pathlib import Path

from ansible.module_utils.app_kind import examine
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        {"artifact": {"type": "path", "required": True}, "name": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **examine(Path(module.params["artifact"]), module.params["name"]).as_dict())


if __name__ == "__main__":
    main()
