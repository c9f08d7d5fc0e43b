"""Reads an artifact's requirements.txt as pip would, and refuses what could make pip run code of a package as root."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# A package by its name, as PEP 508 writes it, but for URLs. Paths and options don't look like this.
NAMED = re.compile(r"(?!.*\s-)[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\s*(\[[^\]]*\])?\s*([<>=!~(;].*)?")
HASH = re.compile(r"\s+--hash[= ]sha(256|384|512):[0-9a-f]+")
COMMENT = re.compile(r"(^|\s+)#.*$")


class RequirementError(Exception):
    """A line can't be taken; the message quotes it, and says why and what to do."""


def requirements(file: Path, hashes: bool) -> list[str]:
    """The requirements of a file, one to an item, with their hashes.

    `hashes` says whether each has to have one. Raises RequirementError, also where the file is no UTF-8.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequirementError(f"requirements.txt is no UTF-8 text ({error}); write it anew") from error
    found = list(_joined(text))
    for line in found:
        bare = HASH.sub("", line)
        if not NAMED.fullmatch(bare):
            raise RequirementError(
                f'requirements.txt has the line "{line}". Name a package and its version there, such as pika==1.4.4: '
                "an option, a path or a URL could make pip run code of a package as root. The index is set by the "
                "inventory"
            )
        if hashes and bare == line:
            raise RequirementError(
                f'requirements.txt has the line "{line}" without a hash, and what comes from a package index needs '
                "one. Add --hash=sha256:…, as `pip-compile --generate-hashes` does, or put the wheels into the "
                "artifact's directory wheels/"
            )
    return found


def _joined(text: str) -> Iterator[str]:
    """The lines that are not empty, without comments, and with those that end in a backslash joined to the next."""
    begun = ""
    for line in [*text.splitlines(), ""]:
        begun += COMMENT.sub("", line)
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        if begun.strip():
            yield begun.strip()
        begun = ""
