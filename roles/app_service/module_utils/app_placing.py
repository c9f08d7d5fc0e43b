"""Makes files and a release live, each in one step, and brings that to the disk."""

from __future__ import annotations

import errno
import filecmp
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.app_disk import remove, sync
from ansible.module_utils.app_proof import Service


def place(service: Service, source: Path, release: Path | None) -> None:
    """Make the files in `source` live, and `release` or, for None, no release; each file is replaced in one step.

    What is in `source` has to be on the disk already.
    """
    for name, path in service.live.items():
        if is_same(source / name, path):  # replaced, it would be a new unit to systemd
            continue
        if name == "credentials" or not (source / name).exists():
            remove(path)
        if (source / name).exists():
            if not path.parent.is_dir():
                path.parent.mkdir()
                path.parent.chmod(0o755)
                sync(path.parent.parent)
            move(source / name, path)
    if release:
        link = service.current.with_suffix(".new")
        with suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(release)
        link.replace(service.current)
    else:
        remove(service.current)
    shutil.rmtree(source)
    restorecon = shutil.which("restorecon")
    if restorecon:  # a moved file keeps the SELinux type of where it came from; without SELinux, no effect
        subprocess.run([restorecon, "-R", *(path for path in service.live.values() if path.exists())], check=False)
    for directory in {path.parent for path in (*service.live.values(), service.current)}:
        if directory.is_dir():
            sync(directory)


def is_same(source: Path, target: Path) -> bool:
    """Whether two files have the same content, mode and owner."""
    if not (source.is_file() and target.is_file()) or target.is_symlink():
        return False
    alike = [(found.st_mode, found.st_uid, found.st_gid) for found in (source.stat(), target.stat())]
    return alike[0] == alike[1] and filecmp.cmp(source, target, shallow=False)


def move(source: Path, target: Path) -> None:
    """Move a file over another one, or a directory to where there is none, in one step."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # /usr may be a file system of its own, and nothing can be renamed across file systems.
        copy = target.with_name(f".{target.name}.new")
        shutil.copy2(source, copy)
        sync(copy)
        copy.replace(target)
