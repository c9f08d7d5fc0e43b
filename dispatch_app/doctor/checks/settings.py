"""The settings: are they complete, and does nobody else read the password?"""

from __future__ import annotations

import re

from ...settings import SettingsError
from ..case import Case
from ..table import ERROR, WARNING, Check, Finding
from . import needs
from .fixes import mode_of, provision, quoted


def address_placeholder(case: Case) -> Finding | None:
    address = case.host.environment.get("AMQP_HOST", "")
    if not re.search("[<>]", address):
        return None
    return provision(f"AMQP_HOST is {address}", "RabbitMQ's address is still the runbook's placeholder: "
                      "dispatch_amqp_host in the inventory has to say where RabbitMQ is.")  # fmt: skip


def settings_invalid(case: Case) -> Finding | None:
    try:
        case.host.settings  # noqa: B018 - reading them is the check
    except SettingsError as error:
        return provision("; ".join(error.problems), "The service can't start with these settings.")
    return None


def password_readable(case: Case) -> Finding | None:
    for value in case.host.service.get("Environment", []):
        if "AMQP_PASS=" in value:
            return provision(f"{case.host.fragment} has Environment=AMQP_PASS=…",
                              "Every user of the host can read the password, with systemctl show; "
                              "the play makes it a credential.")  # fmt: skip
    files = [path for path in case.host.environment_files if path.is_file()]
    secret = [path for path in files if "AMQP_PASS=" in path.read_text(encoding="utf-8", errors="replace")]
    secret += [path for name, path in case.host.credentials.items() if not name.endswith("_ca")]
    for path in secret:
        above = path.parent.stat().st_mode if path.parent.exists() else 0
        if path.exists() and path.stat().st_mode & 0o077 and above & 0o001:
            cause = "Users other than root can read the password."
            closed = f"chmod 0700 {quoted(path.parent)} && " if case.host.ours and path not in files else ""
            return Finding(f"{path} is {mode_of(path)}", cause, f"{closed}chmod 0600 {quoted(path)}")
    return None


CHECKS = (
    Check("address-placeholder", "settings", ERROR, "AMQP_HOST is no placeholder", address_placeholder, needs.UNIT),
    Check("settings-invalid", "settings", ERROR, "the settings are valid", settings_invalid,
          (*needs.UNIT, "address-placeholder")),
    Check("password-readable", "settings", WARNING, "only root can read the password", password_readable, needs.UNIT),
)  # fmt: skip
