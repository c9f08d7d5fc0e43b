"""A Bloom filter of the ids in a ledger, which tells of almost each new id that it is new without a look at the tables.

It is a file, of which the kernel keeps in memory what there is room for. An id has three bits, all in one word of
eight octets, so that a question takes one read (Putze and others, "Cache-, Hash- and Space-Efficient Bloom Filters").
A file that has been saved ends with a name, by which its ledger tells it from any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

_WORD = 8  # octets
_OCTETS = 2  # for each id that there is room for; with as many, one new id in a hundred is taken for a known one


class BloomFilter:
    """The ids that have been added, and a few others. One thread at a time uses it."""

    def __init__(self, path: Path, room: int, name: bytes = b"") -> None:
        """Make the file, with `room` for so many ids, or take the one that was saved under `name`.

        It errs more often with more ids. Raises OSError, FileNotFoundError where no such file was saved.
        """
        self.room, self.added = room, 0
        self._words = room * _OCTETS // _WORD
        end = self._words * _WORD
        if not name:
            path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (0 if name else os.O_CREAT | os.O_EXCL)
        self._descriptor = os.open(path, flags, 0o600)
        try:
            if not name:
                os.truncate(self._descriptor, end)
            elif os.pread(self._descriptor, len(name) + 1, end) != name:
                raise FileNotFoundError(path)
        except OSError:
            self.close()
            raise

    @property
    def crowded(self) -> bool:
        """Whether it has more ids than there is room for."""
        return self.added > self.room

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
            number = number_of(blake2b(one.encode(), digest_size=8).digest(), "little")
            at = (number >> 18) % words * _WORD
            word = number_of(read(descriptor, _WORD, at), "little")
            bits = 1 << (number & 63) | 1 << (number >> 6 & 63) | 1 << (number >> 12 & 63)
            if word & bits == bits:
                found.append(one)
            elif add:
                os.pwrite(descriptor, (word | bits).to_bytes(_WORD, "little"), at)
                self.added += 1
        return found

    def save(self, name: bytes) -> None:
        """Sync the file, under a name that no other has. Raises OSError."""
        os.pwrite(self._descriptor, name, self._words * _WORD)
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Give up the file."""
        os.close(self._descriptor)
