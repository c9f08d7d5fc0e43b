"""What is known of one host, and of its broker once the settings can be read."""

from __future__ import annotations

from functools import cached_property

from .. import topology
from .broker import Broker, Depth
from .database import SharedLedger
from .host import Host
from .process import Process
from .state import State


class Case:
    """One host that is examined; each thing is read when it is first asked for."""

    def __init__(self) -> None:
        self.host = Host()
        self.process = Process(self.host)
        self.state = State(self.host)

    @cached_property
    def broker(self) -> Broker:
        """The broker of the service's settings. Raises SettingsError."""
        return Broker(self.host.settings)

    @cached_property
    def database(self) -> SharedLedger | None:
        """The database of the ledger, if it is in one. Raises SettingsError."""
        ledger = self.host.settings.ledger
        return SharedLedger(ledger) if ledger else None

    @cached_property
    def depths(self) -> dict[str, Depth | None]:
        """The order queue, the retry queues and the dead letters, by name. Raises LookError."""
        s = self.broker.settings
        names = (s.queue, *topology.retry_queues(s), topology.dead_queue(s))
        return {name: self.broker.depth(name) for name in names}

    @property
    def orders(self) -> Depth | None:
        """The order queue; None where there is none. Raises LookError."""
        return self.depths[self.broker.settings.queue]

    def close(self) -> None:
        """End the connection to the broker, if there is one."""
        if "broker" in vars(self):
            self.broker.close()
