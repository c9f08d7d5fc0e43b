"""A broker's definitions: users, permissions, queues, bindings, policies; messages are none. For Python 3.9 and later.

They hold the hashes of the users' passwords, so they stand in no file that others than their owner can read, and in no
diff (rabbitmq.com, "Schema Definition Export and Import").
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.rabbitmq_cluster import ctl
from ansible.module_utils.rabbitmq_host import CTL, Run, unreachable
from ansible.module_utils.rabbitmq_versions import series
from ansible.module_utils.server_files import RefusedError

# What tells one object of a kind from another, by the kind's name in the definitions.
_KEYS = {
    "vhosts": ("name",),
    "users": ("name",),
    "permissions": ("vhost", "user"),
    "topic_permissions": ("vhost", "user", "exchange"),
    "parameters": ("vhost", "component", "name"),
    "global_parameters": ("name",),
    "policies": ("vhost", "name"),
    "queues": ("vhost", "name"),
    "exchanges": ("vhost", "name"),
    "bindings": ("vhost", "source", "destination_type", "destination", "routing_key", "arguments"),
}  # fmt: skip


def export(run: Run) -> dict[str, Any]:
    """The definitions of the host's node. Raises RefusedError."""
    if not CTL.exists():
        raise RefusedError("This host has no RabbitMQ. Run playbooks/rabbitmq.yml, which installs it.")
    return dict(json.loads(ctl(run, "rabbitmqctl", "--quiet", "export_definitions", "-")))


def save(definitions: dict[str, Any], target: Path) -> None:
    """Write definitions to a new file that its owner alone can read. Raises OSError."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(definitions, stream)


def version(definitions: dict[str, Any]) -> str:
    """The version of the RabbitMQ that definitions are from."""
    return str(definitions.get("rabbitmq_version") or definitions.get("rabbit_version") or "")


def refuse_newer(saved: str, running: str) -> None:
    """Raise RefusedError where definitions are from a later RabbitMQ, whose objects this one may not know."""
    if series(saved) > series(running):
        raise RefusedError(
            f"The backup is of RabbitMQ {saved}, and this host has {running}, which may not know what that had. "
            f"Install RabbitMQ {saved} or later; nothing has changed."
        )


def lacking(saved: dict[str, Any], found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The saved objects that a broker lacks, by their kinds. What it has stays as it is: the inventory rules it."""
    due = {}
    for kind, names in _KEYS.items():
        there = {_key(row, names) for row in found.get(kind, ())}
        # A cluster made anew has an identity of its own, which is a parameter.
        rows = [row for row in saved.get(kind, ()) if not str(row.get("name")).startswith("internal_cluster_id")]
        if rows := [row for row in rows if _key(row, names) not in there]:
            due[kind] = rows
    return due


def _key(row: dict[str, Any], names: tuple[str, ...]) -> str:
    return json.dumps([row.get(name) for name in names], sort_keys=True)


def named(due: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """What objects are called, in words without their secrets."""
    for kind, rows in due.items():
        for row in rows:
            if kind == "bindings":
                name = f"{row['source']} to {row['destination']} by {row['routing_key']!r}"
            else:
                name = " ".join(str(row.get(part)) for part in _KEYS[kind] if part != "vhost")
            yield f"{kind.replace('_', ' ')}: {name}" + (f" ({row['vhost']})" if row.get("vhost", "/") != "/" else "")


def load(run: Run, due: dict[str, list[dict[str, Any]]]) -> None:
    """Give the broker what it lacks. Raises RefusedError."""
    # Standard input, because rabbitmqctl reads files as another user, for whom these are not.
    code, output, error = run(["rabbitmqctl", "import_definitions"], data=json.dumps(due))
    if code:
        said = error.strip() or output.strip()
        raise RefusedError(unreachable(said) or f"rabbitmqctl import_definitions failed. RabbitMQ says: {said}")
