"""What playbooks/backup.yml and restore.yml say, and whose backup counts for a host of Dispatch's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def saved(taken: Mapping[str, Any], path: str) -> list[str]:
    """What was saved of a host, a line each; `path` is the backup's, "" in a preview."""
    return [*taken["saved"], f"in {path}" if path else "(nothing was saved: this is a preview)"]


def restored(result: Mapping[str, Any], path: str, host: str) -> list[str]:
    """What a host was given back, and what is live there that was not; `path` is the backup's."""
    lines = [f"{host} has all that {path} holds."] if not result["restored"] else [f"From {path}:", *result["restored"]]
    return lines + [f"not as it was, because the inventory rules it: {note}" for note in result["notes"]]


def moment_of(taken: Mapping[str, Any], databases: Iterable[Mapping[str, Any]]) -> int:
    """When the backup was taken that has a host's ledger, in seconds since 1970; 0 where none has.

    `taken` is what was saved of the host, `databases` what was saved of each server, one of which has a fleet's ledger.
    """
    holders = databases if taken.get("shared") else [taken]
    return max((int(one["moment"]) for one in holders if one.get("ledger")), default=0)


class FilterModule:
    """The filters of this file, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"backup_saved_text": saved, "backup_restored_text": restored, "backup_moment_of": moment_of}
