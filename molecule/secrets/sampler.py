"""Looks for words in the command lines and environments of all processes of a host, over and over, while it changes.

``sampler.py WORDS COUNTS DECOY``: WORDS is a file with one word a line. The sampler writes to COUNTS, as JSON, how many
processes had each word, and how many had DECOY: that is in the sampler's own command line, so every look has to see it.
It ends with an error where it can't read a process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

PERIOD = 0.02  # seconds from one look to the next


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
    except (FileNotFoundError, ProcessLookupError):  # the process has ended meanwhile
        return b""


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
