"""Which orders the process died over: killed for memory, by its watchdog, or crashed.

RabbitMQ delivers what was in hand at a death again, flagged as redelivered, and the next process would die
of it, too. So the one redelivered order that is worked on is named in a file, and whoever finds a name there
at its start counts a death. An order that has not been delivered before costs nothing.

Nothing is synced: what the kernel has been told outlives the process, and a power cut is no order's fault.
"""

from __future__ import annotations

import contextlib
import json
import os
from hashlib import blake2b
from pathlib import Path

from .logs import log

DEATHS = 3  # over one order, after which it is put aside
REASON = "killed-the-consumer"
MEMORY = "deaths.json"  # in the state directory: the deaths by the message's BLAKE2b, in hexadecimal digits
_KEPT = 100  # orders whose deaths are remembered
_DIGEST = 16  # octets


class DeadlyOrderError(Exception):
    """The process has died over this order often enough."""

    reason = REASON


class Suspects:
    """The memory of deaths, in the state directory. Without a directory that can be written, there is none."""

    def __init__(self, directory: Path) -> None:
        """Read the memory, and count the death of the previous process if it died over an order."""
        self._in_hand = False
        self._path = directory / MEMORY
        self._deaths = self._read()
        self._file = -1
        with contextlib.suppress(OSError):
            self._file = os.open(directory / "in-hand", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            name = os.pread(self._file, _DIGEST, 0)
            if any(name):
                self._count(name.hex())
                self._mark(bytes(_DIGEST))

    def take(self, body: bytes) -> None:
        """Name a redelivered order as the one in hand. Raises DeadlyOrderError if it must not be worked on."""
        name = blake2b(body, digest_size=_DIGEST).digest()
        if (deaths := self._deaths.get(name.hex(), 0)) >= DEATHS:
            raise DeadlyOrderError(f"the process died {deaths} times while it worked on this message")
        self._in_hand = True
        self._mark(name)

    def leave(self) -> None:
        """Note that no suspect is in hand any more."""
        if self._in_hand:
            self._in_hand = False
            self._mark(bytes(_DIGEST))

    def forget(self, body: bytes) -> None:
        """Forget the deaths over an order that has been put aside: when it is replayed, it begins anew."""
        if self._deaths.pop(blake2b(body, digest_size=_DIGEST).hexdigest(), 0):
            self._write()

    def _mark(self, name: bytes) -> None:
        with contextlib.suppress(OSError):  # orders matter more than the memory of deaths
            os.pwrite(self._file, name, 0)

    def _count(self, name: str) -> None:
        deaths = self._deaths.pop(name, 0) + 1
        self._deaths = {**dict([*self._deaths.items()][1 - _KEPT :]), name: deaths}
        self._write()
        log.error("the process died while it worked on an order that had been delivered before (%d of %d times, then "
                  "the order is put aside)", deaths, DEATHS)  # fmt: skip

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_bytes())
            return {str(name): int(count) for name, count in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):  # there is none, or it is damaged
            return {}

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            new.write_text(json.dumps(self._deaths))
            new.replace(self._path)
