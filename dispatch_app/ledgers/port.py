"""What Dispatch asks of a ledger, whichever it is: to record orders once, and to tell which are to be announced.

A ledger blocks until it has answered; `desk` decides whether the event loop waits for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

# id, user, total, items, correlation id, redelivered (0 or 1)
Row = tuple[str, "str | None", "float | None", "int | None", "str | None", int]


class Unannounced(NamedTuple):
    """An order that is dispatched and has not been announced yet."""

    seq: int
    id: str
    correlation_id: str | None
    dispatched_at: int  # milliseconds since 1970, UTC
    host: str = ""  # that dispatched it, where the ledger is that of several


class Backlog(NamedTuple):
    """How many orders wait to be announced, and for how many seconds the first of them has."""

    orders: int
    seconds: float


class Filter(NamedTuple):
    """Which orders are asked for; None asks for any."""

    since: int | None = None  # milliseconds since 1970, UTC
    id: str | None = None
    user: str | None = None
    correlation_id: str | None = None


class LedgerError(Exception):
    """The ledger is no use until somebody mends it; the text says why and what to do."""

    def __init__(self, text: str, damaged: bool = False) -> None:
        super().__init__(text)
        self.damaged = damaged


# What can be in the way of a ledger.
UNREACHABLE, REPLICA, SCHEMA = "unreachable", "replica", "schema"


class AwayError(Exception):
    """The ledger can't be read or written now, and orders are held until it can; no order is at fault."""

    def __init__(self, cause: str, remedy: str, kind: str = UNREACHABLE) -> None:
        """Say why and what to do; `kind` is one of those above."""
        super().__init__(cause)
        self.remedy, self.kind = remedy, kind


class ClockError(AwayError):
    """By this clock all orders would be past their retention, though it may just be wrong."""


class Ledger(Protocol):
    """A ledger that is open. One thread at a time asks it; each method may raise AwayError, and has then done nothing.

    The one exception is a database that was lost at the commit: the same orders are then recorded again, and the answer
    tells which of them are duplicates of others than themselves.
    """

    most_held: float  # seconds between two tries at most, while it can't be written

    @property
    def damage(self) -> LedgerError | None:
        """Return what makes the ledger no use although it was opened, where that has been found; it never raises."""

    def record(self, rows: Sequence[Row]) -> list[int]:
        """Make `rows` durable in one transaction; return the indexes of duplicates, ascending."""

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that have been dispatched."""

    def unannounced(self, limit: int, after: int = 0) -> list[Unannounced]:
        """Return orders with a number above `after` that are for this process to announce, the first ones first."""

    def announced(self, orders: Sequence[int]) -> None:
        """Note in one transaction that the orders with these numbers have been announced."""

    def forget(self, days: int, limit: int = 5000) -> int:
        """Delete orders older than `days`, at most `limit` of the next 10 * `limit`; return how many.

        Calls go through the ledger in turns. An order that has still to be announced is kept. Raises ClockError.
        """

    def backlog(self) -> Backlog:
        """Return what waits to be announced; any thread may ask."""

    def size(self) -> int:
        """Return how many octets the ledger takes on disk; any thread may ask, and it never raises."""

    def close(self) -> None:
        """Give up what it holds."""


@runtime_checkable
class Remote(Ledger, Protocol):
    """A ledger on the network: it may take its time, or be away for long."""

    def look(self) -> None:
        """See that it can be used, and note its figures. Raises AwayError."""

    def interrupt(self) -> None:
        """Have a question that has no answer yet end with an AwayError; any thread may do this."""


def duplicates(rows: Sequence[Row], fresh: set[str]) -> list[int]:
    """Return the indexes of the rows that were there before, where `fresh` has the ids of those that were not."""
    found = []
    for index, row in enumerate(rows):
        if row[0] in fresh:
            fresh.remove(row[0])  # if the same id comes again in this batch, that is a duplicate
        else:
            found.append(index)
    return found
