"""A Bloom filter of the ids in a ledger, which tells of almost each new id that it is new without a look at the tables.

It lives as long as the process, in a file without a name, of which the kernel keeps in memory what there is room for.
An id has three bits, all in one word of eight octets, so that a question takes one read (F. Putze and others, "Cache-,
Hash- and Space-Efficient Bloom Filters", 2007).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

_WORD = 8  # octets
_OCTETS = 2  # for each id that there is room for; with as many, one new id in a hundred is taken for a known one


class BloomFilter:
    """The ids that have been added, and a few others. One thread at a time uses it."""

    def __init__(self, directory: Path, room: int) -> None:
        """Make the file in `directory`, with `room` for so many ids; it errs more often with more. Raises OSError."""
        self._room, self._added = room, 0
        self._words = room * _OCTETS // _WORD
        with tempfile.TemporaryFile(dir=directory) as file:
            os.truncate(file.fileno(), self._words * _WORD)
            self._descriptor = os.dup(file.fileno())

    @property
    def crowded(self) -> bool:
        """Whether it has more ids than there is room for."""
        return self._added > self._room

    def add(self, ids: Iterable[str]) -> list[str]:
        """Add ids, and return those that may have been added before. Raises OSError; some may then be missing."""
        return self._look(ids, True)

    def possible(self, ids: Iterable[str]) -> list[str]:
        """Return those of `ids` that may have been added. Raises OSError."""
        return self._look(ids, False)

    def _look(self, ids: Iterable[str], add: bool) -> list[str]:
        descriptor, words, read, number_of = self._descriptor, self._words, os.pread, int.from_bytes
        found = []
        for one in ids:
            number = hash(one)
            at = (number >> 18) % words * _WORD
            word = number_of(read(descriptor, _WORD, at), "little")
            bits = 1 << (number & 63) | 1 << (number >> 6 & 63) | 1 << (number >> 12 & 63)
            if word & bits == bits:
                found.append(one)
            elif add:
                os.pwrite(descriptor, (word | bits).to_bytes(_WORD, "little"), at)
                self._added += 1
        return found

    def close(self) -> None:
        """Give up the file."""
        os.close(self._descriptor)
