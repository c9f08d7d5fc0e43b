"""Which host of the broker is tried next, and after how long."""

from __future__ import annotations

import random
from collections.abc import Sequence

BACKOFF = (0.2, 30.0)  # seconds before the second attempt, and at most before any


class Route:
    """The hosts of AMQP_HOST, in an order that is this machine's own.

    So a fleet spreads over the nodes of a cluster, and where one of them is lost, its clients spread over the others.
    """

    def __init__(self, hosts: Sequence[str], name: str) -> None:
        """Put `hosts` into the order of the machine that is called `name`, the same at every start."""
        self._hosts = random.Random(name).sample(hosts, len(hosts))  # noqa: S311 - no secret
        self._turn = 0
        self.failures = 0  # attempts since orders were last consumed

    @property
    def host(self) -> str:
        """The host whose turn it is."""
        return self._hosts[self._turn]

    def go_on(self, consumed: bool) -> float:
        """Pass the turn on, and return for how many seconds to wait; `consumed` tells whether the host ever worked."""
        self._turn = (self._turn + 1) % len(self._hosts)
        self.failures = 1 if consumed else self.failures + 1
        # Every host is tried once before the wait grows; jitter keeps a fleet from coming back all at once.
        rounds = min(self.failures // len(self._hosts), 10)
        wait: float = min(BACKOFF[1], BACKOFF[0] * 2**rounds) * random.uniform(0.5, 1)  # noqa: S311 - no secret
        return wait
