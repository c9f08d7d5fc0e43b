"""Makes the artifacts in a directory, which is created: `python -m tests.integration.original DIRECTORY`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.integration import original

directory = Path(sys.argv[1])
directory.mkdir(parents=True, exist_ok=True)
for make in (original.source, original.broken):
    make(directory / f"{make.__name__}.zip")
