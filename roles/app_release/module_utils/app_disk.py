"""Brings what was written to the disk, so that it outlives a power cut, and takes away what stands at a path.

A rename may reach the disk before the data of the renamed file, which is empty after a cut then; XFS does so. A name is
safe once its directory is on the disk, too (fsync(2)).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path


def sync(path: Path) -> None:
    """Bring a file's data, or the names in a directory, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(top: Path) -> None:
    """Bring a directory and all below it to the disk, a file at a time. Raises OSError."""
    for place, _, files in os.walk(top, topdown=False):
        for path in (Path(place, name) for name in files):
            if not path.is_symlink():  # a link is no more than a name
                sync(path)
        sync(Path(place))


def sync_file_system(path: Path) -> None:
    """Bring all that a path's file system holds to the disk. Raises OSError.

    A release has hundreds of files, for which this is quicker than `sync_tree`. Python has no syncfs(2).
    """
    done = subprocess.run(["sync", "--file-system", str(path)], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise OSError(f"what was written could not be brought to the disk: {done.stderr.strip()}")


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory, if there is one. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()
