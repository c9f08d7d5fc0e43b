"""What a broker's definitions lack of what is wanted, as commands of rabbitmqctl. For Python 3.9 and later.

The definitions are those of ``rabbitmqctl export_definitions`` (rabbitmq.com, "Schema Definition Export and Import").
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

# By the names RabbitMQ gives them in a user's definition (rabbitmq.com, "Credentials and Passwords").
_HASHES = {"rabbit_password_hashing_sha256": hashlib.sha256, "rabbit_password_hashing_sha512": hashlib.sha512}
_SALT = 4  # octets


@dataclass(frozen=True)
class User:
    """A user as it is wanted. Without permissions it may use nothing in the virtual host."""

    name: str
    password: str = field(repr=False)
    tags: list[str]
    permissions: dict[str, str] | None = None  # configure, write, read: regular expressions of names


@dataclass(frozen=True)
class Wanted:
    """The objects RoboShop's services need on their broker."""

    users: list[User]
    vhost: str
    policies: list[dict[str, Any]]
    without_guest: bool
    queue_type: str = ""  # of new queues in the virtual host whose declaration names none; "" leaves it as it is


@dataclass(frozen=True)
class Step:
    """One command of rabbitmqctl. `password` goes to its standard input and stands nowhere else.

    `otherwise` is what to run in place of a command that this version of rabbitmqctl does not know.
    """

    what: str
    words: list[str]
    password: str | None = field(default=None, repr=False)
    otherwise: list[str] | None = None


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


def queue_type(definitions: dict[str, Any], vhost: str) -> str:
    """Return the type of new queues in a virtual host whose declaration names none."""
    found = next((dict(row) for row in definitions.get("vhosts", ()) if row["name"] == vhost), {})
    told = (found.get("metadata") or {}).get("default_queue_type") or found.get("default_queue_type")
    return "classic" if told in (None, "undefined") else str(told)


def classic_queues(definitions: dict[str, Any], vhost: str) -> list[str]:
    """Return the queues that their services could not declare any more were the virtual host's queue type quorum."""
    return sorted(
        queue["name"]
        for queue in definitions.get("queues", ())
        if (queue["vhost"], queue["durable"], queue["auto_delete"]) == (vhost, True, False)
        and queue["arguments"].get("x-queue-type", "classic") == "classic"
    )


def queue_type_step(vhost: str, kind: str) -> Step:
    """Return what sets the type of new queues in a virtual host."""
    # RabbitMQ 3.10 and 3.11 have no command for a virtual host that is there already.
    name = f"<<{','.join(map(str, vhost.encode()))}>>"
    change = f'rabbit_vhost:update_metadata({name}, fun(M) -> M#{{default_queue_type => <<"{kind}">>}} end)'
    evaluated = f"rabbit_misc:execute_mnesia_transaction(fun() -> {change} end), ok."
    return Step(
        f"make new queues of the virtual host {vhost} {kind} queues",
        ["update_vhost_metadata", vhost, "--default-queue-type", kind],
        otherwise=["eval", evaluated],
    )


def steps(wanted: Wanted, definitions: dict[str, Any], fitting: Collection[str]) -> Iterator[Step]:
    """Yield what makes the broker what is wanted; `fitting` names the users whose password is the one wanted."""
    for user in wanted.users:
        yield from _account_steps(user, user_of(definitions, user.name), user.name in fitting)
    if wanted.vhost not in [vhost["name"] for vhost in definitions.get("vhosts", ())]:
        typed = ["--default-queue-type", wanted.queue_type] if wanted.queue_type else []
        yield Step(f"create the virtual host {wanted.vhost}", ["add_vhost", wanted.vhost, *typed])
    elif _queue_type_is_due(wanted, definitions):
        yield queue_type_step(wanted.vhost, wanted.queue_type)
    for user in wanted.users:
        if _permissions(wanted, user) != _found_permissions(wanted, user, definitions):
            yield _permission_step(wanted, user)
    for policy in wanted.policies:
        if _policy(wanted, policy) not in definitions.get("policies", ()):
            words = ["set_policy", "--vhost", wanted.vhost, "--priority", str(policy["priority"])]
            words += ["--apply-to", policy["apply_to"], policy["name"], policy["pattern"]]
            words += [json.dumps(policy["definition"])]
            yield Step(f"set the policy {policy['name']}", words)
    if _leaves_guest(wanted, definitions):
        yield Step("remove the user guest", ["delete_user", "guest"])


def _account_steps(user: User, found: dict[str, Any] | None, fits: bool) -> Iterator[Step]:
    if found is None:
        yield Step(f"create the user {user.name}", ["add_user", user.name], user.password)
    elif not fits:
        yield Step(f"change the password of {user.name}", ["change_password", user.name], user.password)
    if _tags(found) != user.tags:
        yield Step(f"set the tags of {user.name}", ["set_user_tags", user.name, *user.tags])


def _permission_step(wanted: Wanted, user: User) -> Step:
    if user.permissions is None:
        return Step(f"take {user.name} its permissions", ["clear_permissions", "--vhost", wanted.vhost, user.name])
    patterns = [user.permissions[kind] for kind in ("configure", "write", "read")]
    words = ["set_permissions", "--vhost", wanted.vhost, user.name, *patterns]
    return Step(f"set the permissions of {user.name}", words)


def shown(wanted: Wanted, definitions: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the objects concerned as they are and as they are wanted, for a diff; passwords are in neither."""
    names = [policy["name"] for policy in wanted.policies]
    found = {user.name: user_of(definitions, user.name) for user in wanted.users}
    before: dict[str, Any] = {
        "tags": {name: _tags(user) for name, user in found.items() if user},
        "vhost": wanted.vhost if wanted.vhost in [vhost["name"] for vhost in definitions.get("vhosts", ())] else None,
        "queue_type": queue_type(definitions, wanted.vhost),
        "permissions": [row for user in wanted.users for row in _found_permissions(wanted, user, definitions)],
        "policies": [
            policy
            for policy in definitions.get("policies", ())
            if policy["vhost"] == wanted.vhost and policy["name"] in names
        ],
        "guest": user_of(definitions, "guest") is not None,
    }
    after: dict[str, Any] = {
        "tags": {user.name: user.tags for user in wanted.users},
        "vhost": wanted.vhost,
        "queue_type": wanted.queue_type if _queue_type_is_due(wanted, definitions) else before["queue_type"],
        "permissions": [row for user in wanted.users for row in _permissions(wanted, user)],
        "policies": sorted((_policy(wanted, policy) for policy in wanted.policies), key=lambda policy: policy["name"]),
        "guest": before["guest"] and not _leaves_guest(wanted, definitions),
    }
    before["policies"].sort(key=lambda policy: policy["name"])
    return before, after


def _queue_type_is_due(wanted: Wanted, definitions: dict[str, Any]) -> bool:
    """Whether the virtual host gets another queue type; not while it has queues that could not be declared then."""
    differs = wanted.queue_type not in ("", queue_type(definitions, wanted.vhost))
    return differs and not classic_queues(definitions, wanted.vhost)


def _leaves_guest(wanted: Wanted, definitions: dict[str, Any]) -> bool:
    return (
        wanted.without_guest
        and user_of(definitions, "guest") is not None
        and all(user.name != "guest" for user in wanted.users)
    )


def _tags(user: dict[str, Any] | None) -> list[str]:
    tags = (user or {}).get("tags", [])
    # A string before RabbitMQ 3.8, a list since.
    return tags.split(",") if isinstance(tags, str) and tags else list(tags)


def _permissions(wanted: Wanted, user: User) -> list[dict[str, str]]:
    return [] if user.permissions is None else [{"user": user.name, "vhost": wanted.vhost, **user.permissions}]


def _found_permissions(wanted: Wanted, user: User, definitions: dict[str, Any]) -> list[dict[str, str]]:
    permissions = definitions.get("permissions", ())
    return [row for row in permissions if (row["user"], row["vhost"]) == (user.name, wanted.vhost)]


def _policy(wanted: Wanted, policy: dict[str, Any]) -> dict[str, Any]:
    return {
        "vhost": wanted.vhost,
        "name": policy["name"],
        "pattern": policy["pattern"],
        "apply-to": policy["apply_to"],
        "definition": policy["definition"],
        "priority": policy["priority"],
    }
