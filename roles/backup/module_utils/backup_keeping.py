"""The backups on the controller: one directory a host, of which some are kept. For Python 3.9 and later."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.app_disk import sync
from ansible.module_utils.backup_archive import SUFFIX, kept, moment_name, verified
from ansible.module_utils.server_files import RefusedError


def store(incoming: Path, keep: int) -> tuple[Path, list[Path]]:
    """Have a backup that has arrived count, once it is verified; remove all but the `keep` last ones beside it.

    Return its path and what was removed. Raises RefusedError and OSError.
    """
    manifest = verified(incoming)
    incoming.chmod(0o600)
    sync(incoming)
    path = incoming.with_name(moment_name(manifest["moment"]) + SUFFIX)
    incoming.replace(path)
    removed = [one for one in kept(path.parent)[:-keep] if one != path]
    for one in removed:
        one.unlink()
    sync(path.parent)
    return path, removed


def find(directory: Path, host: str, moment: str = "") -> Path:
    """The backup of a host of that moment, its name without or with the suffix; the last one for "".

    Raises RefusedError, which tells what there is instead.
    """
    found: list[Path] = kept(directory / host)
    if not found:
        others = sorted(path.name for path in directory.glob("*") if kept(path))
        there = f"it has backups of {', '.join(others)}" if others else "it has none at all"
        raise RefusedError(
            f"There is no backup of {host} in {directory}; {there}. Say where they are by -e backup_directory=<path>, "
            "or whose is to be taken by -e backup_of=<host> --limit <this host>; nothing has changed."
        )
    if not moment:
        return found[-1]
    names = {path.name[: -len(SUFFIX)]: path for path in found}
    wanted = moment[: -len(SUFFIX)] if moment.endswith(SUFFIX) else moment
    if wanted not in names:
        raise RefusedError(
            f"backup_moment is {moment}, of which there is no backup of {host} in {directory}. Set it to one of "
            f"{', '.join(names)}, or leave it out for the last one; nothing has changed."
        )
    return names[wanted]
