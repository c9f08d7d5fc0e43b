#!/usr/bin/python
"""Saves what a host has and nobody can make anew, in one file on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_take
short_description: Save a host's ledger, its broker's definitions and what is live, in one file on it
description:
  - The ledger is copied while it is in use, by C(dispatch ledger backup), which is SQLite's online backup; that of a
    fleet by C(pg_dump), on the server that takes writes. RabbitMQ exports its definitions; messages are none.
  - The file holds password hashes, and only its owner can read it.
options:
  host:
    description: The host's name, for the manifest.
    type: str
    required: true
  parts:
    description: What is to be saved, C(dispatch), C(rabbitmq) or C(postgresql).
    type: list
    elements: str
    choices: [dispatch, rabbitmq, postgresql]
    required: true
  directory:
    description: The directory, of the user who is to fetch the file, to write it in. In check mode, none is needed.
    type: path
    default: ""
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
- name: Save the host's ledger
  backup_take:
    host: dispatch-1
    parts: [dispatch]
    directory: /var/tmp/mine
"""

RETURN = r"""
path:
  description: The file; empty in check mode.
  returned: success
  type: str
moment:
  description: When the backup was begun, in seconds since 1970. It has everything that was there then.
  returned: success
  type: int
saved:
  description: What was saved, or in check mode would be, in words.
  returned: success
  type: list
  elements: str
ledger:
  description: Whether a ledger was saved, or in check mode would be.
  returned: success
  type: bool
shared:
  description: Where the fleet's ledger is that a host of Dispatch's uses; empty where it has its own.
  returned: success
  type: str
"""

import time
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ansible.module_utils import backup_database, backup_definitions, backup_ledger
from ansible.module_utils.backup_archive import DEFINITIONS, DUMP, LEDGER, SUFFIX, moment_name, write
from ansible.module_utils.backup_user import private_directory
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_host import LOCALE
from ansible.module_utils.server_files import RefusedError, group_of, user_of


def main() -> None:
    module = AnsibleModule(
        {
            "host": {"type": "str", "required": True},
            "parts": {
                "type": "list",
                "elements": "str",
                "choices": ["dispatch", "rabbitmq", "postgresql"],
                "required": True,
            },
            "directory": {"type": "path", "default": ""},
            "database": {"type": "str", "default": "dispatch"},
        },
        supports_check_mode=True,
    )
    wanted = module.params

    taking = Taking(partial(module.run_command, environ_update=LOCALE), wanted["database"], module.check_mode)
    try:
        result = taking.take(wanted["host"], wanted["parts"], Path(wanted["directory"]))
    except (RefusedError, OSError) as refused:
        module.fail_json(msg=f"{wanted['host']} was not backed up. {refused}")
    module.exit_json(changed=False, **result)


class Taking:
    """One backup of the host this runs on. In check mode nothing is written."""

    def __init__(self, run: Any, database: str, check_mode: bool) -> None:
        self._run, self._database, self._check_mode = run, database, check_mode
        self._said: list[str] = []
        self._facts: dict[str, Any] = {}
        self._files: dict[str, Path] = {}
        self._ledger, self._shared = False, ""

    def take(self, host: str, parts: list[str], directory: Path) -> dict[str, Any]:
        """Save these parts, and return the module's result. Raises RefusedError and OSError."""
        moment, path = int(time.time()), directory / f"backup{SUFFIX}"
        with private_directory((0, 0)) as root, private_directory(self._writer(parts)) as place:
            if "dispatch" in parts:
                self._dispatch(place)
            if "rabbitmq" in parts:
                self._rabbitmq(root)
            if "postgresql" in parts:
                self._postgresql(place)
            if not self._check_mode:
                facts = {"host": host, "moment": moment, "name": moment_name(moment), **self._facts}
                write(path, backup_ledger.owner(directory), facts, self._files)
        return {
            "path": "" if self._check_mode else str(path),
            "moment": moment,
            "saved": self._said,
            "ledger": self._ledger,
            "shared": self._shared,
        }

    @cached_property
    def _server(self) -> backup_database.Server:
        """The host's PostgreSQL."""
        return backup_database.Server(self._run)

    def _writer(self, parts: list[str]) -> tuple[int, int]:
        """The user whose program writes the ledger's copy: Dispatch's own or PostgreSQL's."""
        if "postgresql" in parts and self._server.takes_writes:
            return user_of(backup_database.USER), group_of(backup_database.USER)
        found: tuple[int, int] = backup_ledger.owner(backup_ledger.STATE)
        return found

    def _dispatch(self, place: Path) -> None:
        self._facts["dispatch"] = backup_ledger.facts()
        release = self._facts["dispatch"]["release"]
        self._said.append(f"that {release} is live, and its settings" if release else "that no release is live")
        self._shared = backup_ledger.shared()
        if self._shared or not (backup_ledger.STATE / LEDGER).exists():
            return
        self._ledger, count = True, ""
        if not self._check_mode:
            count = f" of {backup_ledger.save(self._run, place / LEDGER)} orders"
            self._files[LEDGER] = place / LEDGER
        self._said.append(f"the ledger{count}")

    def _rabbitmq(self, root: Path) -> None:
        definitions = backup_definitions.export(self._run)
        version = backup_definitions.version(definitions)
        self._facts["rabbitmq"] = {"version": version}
        self._files[DEFINITIONS] = root / DEFINITIONS
        backup_definitions.save(definitions, root / DEFINITIONS)
        self._said.append(f"the definitions of RabbitMQ {version}")

    def _postgresql(self, place: Path) -> None:
        server = self._server
        if not server.takes_writes:
            if server.cluster and server.cluster.standby:
                self._said.append("nothing of PostgreSQL, which is a replica here")
                return
            raise RefusedError("PostgreSQL does not run. Start it: systemctl start postgresql")
        schema = server.schema(self._database)
        if not schema:
            raise RefusedError(
                f"The database {self._database} has no ledger's schema. Run playbooks/postgresql.yml, or set "
                "postgresql_database to the one that has it."
            )
        self._facts["postgresql"] = {"version": server.major, "schema": schema}
        self._ledger, count = True, ""
        if not self._check_mode:
            count = f" of {server.dump(self._database, place / DUMP)} orders"
            self._files[DUMP] = place / DUMP
        self._said.append(f"the fleet's ledger{count}")


if __name__ == "__main__":
    main()
