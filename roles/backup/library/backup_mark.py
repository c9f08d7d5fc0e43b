#!/usr/bin/python
"""Leaves on a host of Dispatch's when its ledger's last backup was taken."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_mark
short_description: Leave on a host of Dispatch's when its ledger's last backup was taken
description:
  - Dispatch tells the moment by its metric C(dispatch_backup_last_success_timestamp_seconds).
options:
  moment:
    description: When the backup was taken, in seconds since 1970. A later one is left alone.
    type: int
    required: true
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Leave a mark
  backup_mark:
    moment: 1795846500
"""

RETURN = r"""#"""

from ansible.module_utils.backup_ledger import mark
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule({"moment": {"type": "int", "required": True}}, supports_check_mode=True)
    module.exit_json(changed=mark(module.params["moment"], module.check_mode))


if __name__ == "__main__":
    main()
