"""Installs a collection where nothing else is, as its users do, and runs it there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.publishing.collection import NAME


@dataclass(frozen=True)
class Installed:
    """An installed collection: its archive, where it was installed, and a directory without an ansible.cfg."""

    archive: Path
    collections: Path
    elsewhere: Path

    @property
    def directory(self) -> Path:
        return self.collections / "ansible_collections" / NAME.replace(".", "/")

    def ansible(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of Ansible's commands as a user does who has nothing of this project but the collection."""
        return subprocess.run(
            [sys.executable, "-m", "ansible", command, *arguments],
            cwd=self.elsewhere,
            env={**clean(os.environ), "ANSIBLE_COLLECTIONS_PATH": str(self.collections)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would lead Ansible or Python to the checkout."""
    return {name: value for name, value in environment.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}


def install(archive: Path, directory: Path) -> Installed:
    """Install a collection's archive below a directory, from that file alone."""
    place = Installed(archive, directory / "collections", directory / "elsewhere")
    place.elsewhere.mkdir()
    where = ["-p", str(place.collections), str(archive)]
    done = place.ansible("galaxy", "collection", "install", "--offline", *where)
    assert done.returncode == 0, done.stderr
    return place
