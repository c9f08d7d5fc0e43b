#!/usr/bin/python
"""Has a backup count that has arrived on the controller, and removes old ones."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_store
short_description: Verify a backup that has arrived, give it its name, and remove the oldest ones beside it
description:
  - Runs where the backups are. A backup that is damaged is refused, and those that stand are left alone.
options:
  incoming:
    description: The file that has arrived, in the directory of its host's backups.
    type: path
    required: true
  kept:
    description: How many backups of the host are kept, this one included.
    type: int
    required: true
attributes:
  check_mode:
    support: none
author: RoboShop
"""

EXAMPLES = r"""
- name: Keep the backup
  backup_store:
    incoming: backups/dispatch-1/.incoming.tar.gz
    kept: 7
"""

RETURN = r"""
path:
  description: The backup.
  returned: success
  type: str
removed:
  description: The backups that were removed.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.backup_archive import DamagedError
from ansible.module_utils.backup_keeping import store
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule({"incoming": {"type": "path", "required": True}, "kept": {"type": "int", "required": True}})
    try:
        path, removed = store(Path(module.params["incoming"]), module.params["kept"])
    except DamagedError as damaged:
        module.fail_json(msg=f"{damaged} It was so when it arrived; earlier ones are as they were. Run the play again.")
    except (RefusedError, OSError) as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(changed=True, path=str(path), removed=[str(one) for one in removed])


if __name__ == "__main__":
    main()
