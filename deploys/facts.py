"""What pyinfra reads of a host: everything the deploy asks about, in one round trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.facts.system.distribution import Distribution
from pyinfra.api import FactBase, QuoteString, StringCommand

PROGRAM = Path(__file__).resolve().parents[1] / "roles" / "app_service" / "files" / "inspection.py"
# Ansible's names of the distributions whose own identifier, capitalised, is another word.
NAMES = {"almalinux": "AlmaLinux", "amzn": "Amazon", "centos": "CentOS", "ol": "OracleLinux", "rhel": "RedHat"}


class Inspection(FactBase[dict[str, Any]]):
    """The answer of `roles/app_service/files/inspection.py` to a question given as ``_stdin``."""

    def command(self) -> StringCommand:
        return StringCommand("python3", "-I", "-S", "-c", QuoteString(PROGRAM.read_text()))

    def process(self, output: list[str]) -> dict[str, Any]:
        return dict(json.loads("\n".join(output)))


def ansible_facts(inspection: dict[str, Any]) -> dict[str, str]:
    """The facts the roles refer to, as Ansible's setup module would name them.

    Source: os-release(5), and ansible/module_utils/facts/system/distribution.py for the families.
    """
    release = inspection["release"]
    name = NAMES.get(release["ID"], release["ID"].capitalize())
    version = release.get("VERSION_ID", "")
    families = {member: family for family, members in Distribution.OS_FAMILY_MAP.items() for member in members}
    return {
        "distribution": name,
        "distribution_version": version,
        "distribution_major_version": version.split(".", 1)[0],
        "os_family": families.get(name, name),
        "pkg_mgr": inspection["manager"],
    }
