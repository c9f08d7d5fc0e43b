"""Makes the scenario's artifacts out of the real one: a newer release, and one for each way to break a release."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

# Each of these goes in front of the command line's code and breaks `run`. All but the last leave `check` intact.
BREAKS = {
    "newer": "",
    "wont-start": "import sys\nif 'run' in sys.argv: raise SystemExit('broken: it does not start')\n",
    "never-ready": "import sys, time\nif 'run' in sys.argv: time.sleep(3600)\n",
    "crashes": ("import os, sys, threading\nif 'run' in sys.argv: threading.Timer(2, os._exit, (3,)).start()\n"),
    "hangs": "import time\ntime.sleep(3600)\n",
}


def main(source: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, code in BREAKS.items():
        write(source, directory / f"{name}.zip", {"dispatch_app/__init__.py": code + f"# {name}\n"})
    write(source, directory / "requirements-missing.zip", {"requirements.txt": "no-such-package==1.0\n"})
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    (directory / "corrupt.zip").write_bytes(content)


def write(source: Path, target: Path, before: dict[str, str]) -> None:
    """Copy a zip and put text in front of some of its files; for requirements.txt the text replaces the content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name in before:
                content = before[name].encode() + (b"" if name == "requirements.txt" else content)
            new.writestr(name, content)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
