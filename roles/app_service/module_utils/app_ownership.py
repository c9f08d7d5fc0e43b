"""Takes a service's directories back from others than root, before root trusts what stands in them."""

from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.app_disk import remove
from ansible.module_utils.app_proof import Service


def take(directory: Path, mode: int) -> None:
    """Make a directory, or make the one that is there root's. Raises OSError."""
    directory.mkdir(exist_ok=True)
    os.chown(directory, 0, 0)
    directory.chmod(mode)


def claim(service: Service) -> bool:
    """Take the directory of the settings back where others could write to it; return whether they could.

    What looks there like a saved state may be theirs, and root would make it live, its unit too; so it is dropped.
    Raises OSError.
    """
    directory = service.configuration
    if not directory.exists():
        return False
    found = directory.stat()
    if found.st_uid == os.geteuid() and not found.st_mode & 0o022:
        return False
    take(directory, 0o755)
    for path in (*directory.glob(f"{service.backup.name}*"), *directory.glob("next.*")):
        remove(path)
    return True
