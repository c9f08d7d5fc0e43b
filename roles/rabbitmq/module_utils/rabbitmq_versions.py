"""Which RabbitMQ may follow which, and on which Erlang it runs. For Python 3.9 and later."""

from __future__ import annotations

import re
from collections.abc import Iterator

# rabbitmq.com, "Upgrading RabbitMQ", "RabbitMQ Version Upgradability": the series that one may be upgraded to.
_NEXT = {
    (3, 8): [(3, 9)],
    (3, 9): [(3, 10)],
    (3, 10): [(3, 11)],
    (3, 11): [(3, 12)],
    (3, 12): [(3, 13)],
    (3, 13): [(4, 2), (4, 1), (4, 0)],
    (4, 0): [(4, 2), (4, 1)],
    (4, 1): [(4, 2)],
    (4, 2): [(4, 3)],
}
# The same table: the release of a series from which the next one may be reached.
_FROM = {(3, 11): (3, 11, 18)}
# rabbitmq.com, "Erlang Version Requirements": of each series, or from a release on, the least Erlang, the last major.
_ERLANG = {
    (3, 9): ((23, 2), 24),
    (3, 10): ((24, 2), 25),
    (3, 11): ((25, 0), 25),
    (3, 12): ((25, 0), 26),
    (3, 13): ((26, 0), 26),
    (4, 0): ((26, 2), 26),
    (4, 0, 4): ((26, 2), 27),
    (4, 1): ((26, 2), 27),
    (4, 2): ((27, 0), 27),
    (4, 3): ((27, 0), 27),
    (4, 3, 6): ((27, 0), 28),
}
_DOCUMENT = "rabbitmq.com/docs/upgrade"


def upstream(version: str) -> str:
    """Return the version that the authors gave what a package holds: 25.2.3 of 1:25.2.3+dfsg-1+deb12u4."""
    return re.split(r"[+~-]", version.partition(":")[2] or version)[0]


def number(version: str) -> tuple[int, ...]:
    """Return a version, a package's or its authors', as numbers that compare: (3, 10, 8)."""
    return tuple(int(part) for part in re.findall(r"\d+", upstream(version)))


def series(version: str) -> tuple[int, int]:
    """Return the series that a version of RabbitMQ belongs to, such as (3, 10)."""
    return (*number(version), 0, 0)[0], (*number(version), 0, 0)[1]


def matches(version: str, wanted: str) -> bool:
    """Whether a package's version is the wanted one, which may be given in full or as its authors do."""
    return wanted in (version, upstream(version))


def path_fault(installed: str, wanted: str) -> str:
    """Return why RabbitMQ can't go from one version to a later one in one step; "" where it can."""
    before, after = series(installed), series(wanted)
    if before == after:
        return ""
    steps = next(_paths(before, after), None)
    if steps is None:
        return (
            f"rabbitmq_version is {wanted}, and no supported upgrade from {installed} to {_name(after)} is known here. "
            f"{_DOCUMENT} lists those there are; where there is none, a new cluster takes the old one's place."
        )
    least = _FROM.get(before)
    if least and number(installed) < least:
        return (
            f"rabbitmq_version is {wanted}, and {_name(steps[0])} can be reached from {_dotted(least)} on, while "
            f"{installed} is installed. Set it to {_dotted(least)} or a later one of that series first."
        )
    if len(steps) > 1:
        return (
            f"rabbitmq_version is {wanted}, and from the {installed} that is installed RabbitMQ gets there in steps "
            f"alone: {', then '.join(map(_name, steps))}. Set it to a release of {_name(steps[0])} first, and run this "
            f"after each step ({_DOCUMENT})."
        )
    return ""


def erlang_fault(version: str, erlang: str) -> str:
    """Return why a version of RabbitMQ does not run on one of Erlang; "" where it does, or nobody knows."""
    known = [key for key in _ERLANG if key[:2] == series(version) and key <= number(version)]
    if not known or not erlang:
        return ""
    least, last = _ERLANG[max(known)]
    if least <= number(erlang) and number(erlang)[0] <= last:
        return ""
    return (
        f"RabbitMQ {upstream(version)} would run on Erlang {upstream(erlang)}, and supports {_dotted(least)} to "
        f"{last}.x (rabbitmq.com/docs/which-erlang). Set rabbitmq_erlang_version to one of those that the package "
        "sources have, or rabbitmq_version to a release that supports this Erlang."
    )


def _paths(before: tuple[int, int], after: tuple[int, int]) -> Iterator[list[tuple[int, int]]]:
    """The series on the way from one to another, the shortest way first."""
    ways: list[list[tuple[int, int]]] = [[one] for one in _NEXT.get(before, [])]
    while ways:
        way = ways.pop(0)
        if way[-1] == after:
            yield way
        ways += [[*way, one] for one in _NEXT.get(way[-1], [])]


def _name(one: tuple[int, int]) -> str:
    return f"{_dotted(one)}.x"


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))
