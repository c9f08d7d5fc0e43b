"""Says what is wrong with a variable that has to hold a secret, in sentences that do not show it."""

from __future__ import annotations


def unset(variable: str, what: str, inventory: str) -> str:
    """The fault of a secret that nobody has set; `what` is put into a vault of the `inventory`, a directory."""
    return (
        f"{variable} is not set. Put {what} into a vaulted file beside the inventory: ansible-vault create "
        f"{inventory}/group_vars/all/vault.yml"
    )


def number(variable: str) -> str:
    """The fault of a secret that is digits alone, and stands without quotes."""
    return f'{variable} is a number to YAML, which changes how it is written. Put it in quotes: {variable}: "…"'


def secret_faults(variable: str, value: object, what: str, inventory: str) -> list[str]:
    """The fault that the value of any secret can have, if it has one."""
    if value is None or value == "":
        return [unset(variable, what, inventory)]
    return [] if isinstance(value, str) else [number(variable)]
