"""What a broker's definitions lack of what is wanted, as commands of rabbitmqctl. For Python 3.9 and later.

The definitions are those of ``rabbitmqctl export_definitions`` (rabbitmq.com, "Schema Definition Export and Import").
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# By the names RabbitMQ gives them in a user's definition (rabbitmq.com, "Credentials and Passwords").
_HASHES = {"rabbit_password_hashing_sha256": hashlib.sha256, "rabbit_password_hashing_sha512": hashlib.sha512}
_SALT = 4  # octets


@dataclass(frozen=True)
class Wanted:
    """The objects RoboShop's services need on their broker."""

    user: str
    password: str = field(repr=False)
    tags: list[str]
    vhost: str
    permissions: dict[str, str]  # configure, write, read: regular expressions of names
    policies: list[dict[str, Any]]
    without_guest: bool


@dataclass(frozen=True)
class Step:
    """One command of rabbitmqctl. `password` goes to its standard input and stands nowhere else."""

    what: str
    words: list[str]
    password: str | None = field(default=None, repr=False)


def password_fits(password: str, user: dict[str, Any]) -> bool | None:
    """Return whether a password is a user's, and None where it is hashed in a way this does not know."""
    algorithm = _HASHES.get(user.get("hashing_algorithm", "rabbit_password_hashing_sha256"))
    if algorithm is None:
        return None
    known = base64.b64decode(user.get("password_hash", ""))
    salt = known[:_SALT]
    return known == salt + algorithm(salt + password.encode()).digest()


def user_of(definitions: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return a user's definition, or None where there is no such user."""
    return next((dict(user) for user in definitions.get("users", ()) if user["name"] == name), None)


def steps(wanted: Wanted, definitions: dict[str, Any], fits: bool) -> Iterator[Step]:
    """Yield what makes the broker what is wanted; `fits` says whether the user's password is the one wanted."""
    user = user_of(definitions, wanted.user)
    if user is None:
        yield Step(f"create the user {wanted.user}", ["add_user", wanted.user], wanted.password)
    elif not fits:
        yield Step(f"change the password of {wanted.user}", ["change_password", wanted.user], wanted.password)
    if _tags(user) != wanted.tags:
        yield Step(f"set the tags of {wanted.user}", ["set_user_tags", wanted.user, *wanted.tags])
    if wanted.vhost not in [vhost["name"] for vhost in definitions.get("vhosts", ())]:
        yield Step(f"create the virtual host {wanted.vhost}", ["add_vhost", wanted.vhost])
    if _permission(wanted) not in definitions.get("permissions", ()):
        patterns = [wanted.permissions[kind] for kind in ("configure", "write", "read")]
        words = ["set_permissions", "--vhost", wanted.vhost, wanted.user, *patterns]
        yield Step(f"set the permissions of {wanted.user}", words)
    for policy in wanted.policies:
        if _policy(wanted, policy) not in definitions.get("policies", ()):
            words = ["set_policy", "--vhost", wanted.vhost, "--apply-to", policy["apply_to"], policy["name"]]
            words += [policy["pattern"], json.dumps(policy["definition"])]
            yield Step(f"set the policy {policy['name']}", words)
    if _leaves_guest(wanted, definitions):
        yield Step("remove the user guest", ["delete_user", "guest"])


def shown(wanted: Wanted, definitions: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the objects concerned as they are and as they are wanted, for a diff; passwords are in neither."""
    permission, names = _permission(wanted), [policy["name"] for policy in wanted.policies]
    before: dict[str, Any] = {
        "tags": _tags(user_of(definitions, wanted.user)),
        "vhost": wanted.vhost if wanted.vhost in [vhost["name"] for vhost in definitions.get("vhosts", ())] else None,
        "permissions": [
            found
            for found in definitions.get("permissions", ())
            if (found["user"], found["vhost"]) == (wanted.user, wanted.vhost)
        ],
        "policies": [
            found
            for found in definitions.get("policies", ())
            if found["vhost"] == wanted.vhost and found["name"] in names
        ],
        "guest": user_of(definitions, "guest") is not None,
    }
    after: dict[str, Any] = {
        "tags": wanted.tags,
        "vhost": wanted.vhost,
        "permissions": [permission],
        "policies": sorted((_policy(wanted, policy) for policy in wanted.policies), key=lambda policy: policy["name"]),
        "guest": before["guest"] and not _leaves_guest(wanted, definitions),
    }
    before["policies"].sort(key=lambda policy: policy["name"])
    return before, after


def _leaves_guest(wanted: Wanted, definitions: dict[str, Any]) -> bool:
    return wanted.without_guest and wanted.user != "guest" and user_of(definitions, "guest") is not None


def _tags(user: dict[str, Any] | None) -> list[str]:
    tags = (user or {}).get("tags", [])
    # A string before RabbitMQ 3.8, a list since.
    return tags.split(",") if isinstance(tags, str) and tags else list(tags)


def _permission(wanted: Wanted) -> dict[str, str]:
    return {"user": wanted.user, "vhost": wanted.vhost, **wanted.permissions}


def _policy(wanted: Wanted, policy: dict[str, Any]) -> dict[str, Any]:
    return {
        "vhost": wanted.vhost,
        "name": policy["name"],
        "pattern": policy["pattern"],
        "apply-to": policy["apply_to"],
        "definition": policy["definition"],
        "priority": 0,
    }
