"""Looks for words in the command lines and environments of all processes of a host, over and over, while it changes.

``sampler.py WORDS COUNTS DECOY``: WORDS is a file of one word to a line. COUNTS gets, as JSON, how many processes had
each of them, and how many had DECOY, which is in this one's own command line, so that it is found every time.
Ends where a process can't be read.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

PERIOD = 0.02  # seconds between two looks


def main(words: Path, counts: Path, decoy: str) -> None:
    wanted = [*words.read_bytes().split(), decoy.encode()]
    found = [0] * len(wanted)
    while True:
        for process in Path("/proc").glob("[0-9]*"):
            text = read(process / "cmdline") + b"\0" + read(process / "environ")
            for index, word in enumerate(wanted):
                found[index] += word in text
        written = counts.with_suffix(".new")
        written.write_text(json.dumps(found))
        written.replace(counts)
        time.sleep(PERIOD)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return b""


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
