"""The feature flags of a node's cluster. For Python 3.9 and later."""

from __future__ import annotations

from ansible.module_utils.rabbitmq_cluster import ctl, rows
from ansible.module_utils.rabbitmq_host import Run
from ansible.module_utils.rabbitmq_versions import number
from ansible.module_utils.server_files import RefusedError


def disabled(run: Run) -> list[str]:
    """Return the stable feature flags that are not enabled, though every node supports them. Raises RefusedError."""
    listed = rows(run, "list_feature_flags", "name", "state", "stability")
    return [flag["name"] for flag in listed if flag["state"] == "disabled" and flag["stability"] == "stable"]


def refuse_disabled(run: Run, installed: str, version: str) -> None:
    """Raise RefusedError where `version`, of another series than what is installed, would not start after that."""
    if names := disabled(run):
        raise RefusedError(
            f"RabbitMQ {version} does not start where feature flags of the release before are not enabled: "
            f"{', '.join(names)}. Enable them first, which nothing undoes: rabbitmqctl enable_feature_flag all"
        )
    listed = {flag["name"]: flag["state"] for flag in rows(run, "list_feature_flags", "name", "state")}
    if number(version)[0] >= 4 and listed.get("khepri_db") == "enabled" and number(installed)[0] == 3:
        raise RefusedError(
            f"The feature flag khepri_db is enabled, and RabbitMQ {version} can't read what 3.13 keeps in Khepri "
            "(rabbitmq.com/docs/upgrade). A new cluster has to take this one's place."
        )


def enable(run: Run, check_mode: bool) -> list[str]:
    """Enable every stable feature flag that is not, in check mode none; return their names. Raises RefusedError.

    One by one, so that no experimental one is among them.
    """
    names = disabled(run)
    for name in [] if check_mode else names:
        ctl(run, "rabbitmqctl", "enable_feature_flag", name)
    return names
