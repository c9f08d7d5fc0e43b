"""The artifact's `__main__.py`: the command line on any Python 3.9 or later, without a venv.

`python3 dispatch.zip doctor` works on a host that has nothing else, and `python3 /app/current doctor` where the venv of
the live release is broken, because the packages it requires come from the wheels beside it.
"""

from __future__ import annotations

import sys
import zipfile
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any


def run(here: Path) -> int:
    """Run the command line of the artifact at `here`, a zip or the directory it was unpacked into."""
    root: Any = zipfile.Path(here) if here.is_file() else here
    wheels = root / "wheels"
    with ExitStack() as unpacked:
        for wheel in sorted(wheels.iterdir(), key=str) if wheels.is_dir() else ():
            sys.path.append(str(unpacked.enter_context(resources.as_file(wheel))))
        from dispatch_app.__main__ import main

        return main()


if __name__ == "__main__":
    sys.exit(run(Path(sys.path[0])))
