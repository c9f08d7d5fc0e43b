"""Text that others wrote, made safe to store, and to print on a terminal."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

# Persian words and emoji need these two (Unicode 23.2, "Cursive Connection"); they move nothing on a terminal.
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


def escaped(text: str) -> str:
    """Return text with escapes for what moves a cursor, reorders or hides text, forges a line, or is no character."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape", "backslashreplace").decode()


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON of printable ASCII; what JSON does not know is given as its repr."""
    # json escapes all that is not ASCII, and all of ASCII's control characters but this one.
    return json.dumps(value, indent=indent, default=repr).replace("\x7f", "\\u007f")
