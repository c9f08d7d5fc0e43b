#!/usr/bin/python
"""Finds a host's backup and verifies it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_info
short_description: Find a host's backup, verify its checksums, and say what it holds
description:
  - Runs where the backups are, and changes nothing.
options:
  directory:
    description: The directory that has a directory of backups for each host.
    type: path
    required: true
  host:
    description: The host whose backup is meant.
    type: str
    required: true
  moment:
    description: The backup's name, such as V(20261127T061500Z); the last one if empty.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Find the last backup
  backup_info:
    directory: backups/shop
    host: dispatch-1
"""

RETURN = r"""
path:
  description: The backup.
  returned: success
  type: str
manifest:
  description: What it holds, by its manifest.
  returned: success
  type: dict
"""

from pathlib import Path

from ansible.module_utils.backup_archive import DamagedError, verified
from ansible.module_utils.backup_keeping import find
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule(
        {
            "directory": {"type": "path", "required": True},
            "host": {"type": "str", "required": True},
            "moment": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        path = find(Path(module.params["directory"]), module.params["host"], module.params["moment"])
        manifest = verified(path)
    except DamagedError as damaged:
        module.fail_json(msg=f"{damaged} Name an older one by -e backup_moment=<its name>; nothing has changed.")
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(changed=False, path=str(path), manifest=manifest)


if __name__ == "__main__":
    main()
