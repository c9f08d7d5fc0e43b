#!/usr/bin/python
"""Gives a host back what a backup holds and the host lacks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_restore
short_description: Give a host back what a backup holds and the host lacks
description:
  - A ledger is put back where the host's lacks orders that were saved. One that has orders which the backup lacks is
    refused, unless I(overwrite) is set; then a copy of it is kept beside it.
  - A broker gets the objects that it lacks. Those it has stay as they are, because the inventory rules them.
  - Versions are checked first. In check mode, all that a restoration would refuse is refused, too.
options:
  archive:
    description: The backup, on this host.
    type: path
    required: true
  host:
    description: The host's name, for what is said.
    type: str
    required: true
  overwrite:
    description: Whether orders may be lost that the host's ledger has and the backup lacks.
    type: bool
    default: false
  database:
    description: The database of PostgreSQL that has the fleet's ledger.
    type: str
    default: dispatch
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
author: RoboShop
"""

EXAMPLES = r"""
- name: Restore the host
  backup_restore:
    archive: /var/tmp/mine/backup.tar.gz
    host: dispatch-1
"""

RETURN = r"""
restored:
  description: What was given back, or in check mode would be, in words; no secrets.
  returned: success
  type: list
  elements: str
notes:
  description: What is live and was not when the backup was taken.
  returned: success
  type: list
  elements: str
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils import backup_database, backup_definitions, backup_ledger
from ansible.module_utils.backup_archive import DEFINITIONS, DUMP, LEDGER, text, verified
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_host import LOCALE
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule(
        {
            "archive": {"type": "path", "required": True},
            "host": {"type": "str", "required": True},
            "overwrite": {"type": "bool", "default": False},
            "database": {"type": "str", "default": "dispatch"},
        },
        supports_check_mode=True,
    )
    wanted, run = module.params, partial(module.run_command, environ_update=LOCALE)
    archive = Path(wanted["archive"])
    try:
        manifest = verified(archive)
        restored = []
        if DEFINITIONS in manifest["files"]:
            restored += definitions(run, archive, module.check_mode)
        if LEDGER in manifest["files"]:
            ledger = backup_ledger.Restoration(run, archive, manifest, wanted["overwrite"], wanted["host"])
            restored += ledger.settle(module.check_mode)
        if DUMP in manifest["files"]:
            database = backup_database.Restoration(
                backup_database.Server(run), wanted["database"], archive, manifest, wanted["overwrite"], wanted["host"]
            )
            restored += database.settle(module.check_mode)
        if LEDGER in manifest["files"] and backup_ledger.mark(manifest["moment"], module.check_mode):
            restored.append("left the mark of when the backup was taken")
    except (RefusedError, OSError) as refused:
        module.fail_json(msg=f"{wanted['host']}: {refused}")
    module.exit_json(changed=bool(restored), restored=restored, notes=notes(manifest))


def definitions(run: Any, archive: Path, check_mode: bool) -> list[str]:
    """Give the broker the objects it lacks; return which those are. Raises RefusedError."""
    saved, found = json.loads(text(archive, DEFINITIONS)), backup_definitions.export(run)
    backup_definitions.refuse_newer(backup_definitions.version(saved), backup_definitions.version(found))
    due = backup_definitions.lacking(saved, found)
    if due and not check_mode:
        backup_definitions.load(run, due)
    return list(backup_definitions.named(due))


def notes(manifest: dict[str, Any]) -> list[str]:
    """What differs in what is live: the inventory rules it, and playbooks/dispatch.yml settles it."""
    saved = manifest.get("dispatch")
    if not saved:
        return []
    found, said = backup_ledger.facts(), []
    if found["release"] != saved["release"]:
        said.append(f"{saved['release'] or 'no release'} was live, and {found['release'] or 'none'} is now")
    for name in sorted({*saved["settings"], *found["settings"]}):
        before, now = saved["settings"].get(name, "not set"), found["settings"].get(name, "not set")
        if before != now and found["settings"]:
            said.append(f"{name} was {before}, and is {now}")
    return said


if __name__ == "__main__":
    main()
