"""The mark that `playbooks/backup.yml` leaves once a backup of the ledger has arrived: when that was taken."""

from __future__ import annotations

from pathlib import Path

NAME = "last-backup"  # in the state directory; roles/backup writes it


def last_success(directory: Path) -> float:
    """Return when the ledger's last backup was taken, in seconds since 1970; 0.0 where nothing tells of one."""
    try:
        # Nobody but root writes the mark, but whoever does may write anything: a scrape must not read without end.
        with (directory / NAME).open("rb") as mark:
            return float(int(mark.read(20)))
    except (OSError, ValueError):
        return 0.0
