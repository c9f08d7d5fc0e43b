"""The words that the doctor's parts share: areas, severities and states, a finding, and a check."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .case import Case

# In the order of the exit codes: the first error's area gives the doctor's.
AREAS = ("release", "service", "settings", "ledger", "network", "login", "queues", "flow")
ERROR, WARNING = "error", "warning"
WARNED = 1  # the exit code for warnings alone
OK, FOUND, SKIPPED, UNKNOWN = "ok", "found", "skipped", "unknown"
# Where a fix is run; HOST and BROKER are also what a finding can be about.
HOST, BROKER, DATABASE, CONTROLLER = "host", "broker", "database", "controller"

# What the roles call things on a host; tests/unit/dispatch_app/doctor/test_constants.py holds these to the roles.
NAME, USER, HOME = "dispatch", "roboshop", "/app"
COMPLETE, ACTIVATED = ".complete", ".activated"  # marks of a release
OLDEST_PYTHON = (3, 10)

# All that a fix may run where Ansible is run: a report comes from a host, which may be in a stranger's hands. Ansible
# fills in templates in the arguments of -a, so the path has none of their characters.
CONTROLLER_COMMAND = re.compile(
    r"(ansible \{host\} --become -m ansible\.builtin\.file -a 'path=/[\w./+-]+ state=absent' && )?"
    r"ansible-playbook playbooks/(dispatch|rabbitmq|rollback|site)\.yml",
    re.ASCII,
)


class LookError(Exception):
    """The doctor could not look; the text says why."""


class Finding(NamedTuple):
    """What a check found: the evidence, its cause, and one command that mends it.

    A command for the controller may have `{host}` in it, which stands for the host's name.
    """

    evidence: str
    cause: str
    command: str
    where: str = HOST


class Check(NamedTuple):
    """One question. It is skipped where one of `needs` found something or was skipped itself.

    A `symptom` is reported only where no other error explains it. What is `about` the broker is the same fault on
    every host that uses it.
    """

    id: str
    area: str
    severity: str
    title: str
    look: Callable[[Case], Finding | None]
    needs: tuple[str, ...] = ()
    symptom: bool = False
    about: str = HOST
