"""What the running service says of itself by HTTP."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import cached_property

from .. import status
from ..settings import HTTP
from .host import Host


class Process:
    """The service's process; its counters are read at once, so that a later look sees whether they move."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.counters = self._counters()
        self._counted_at = time.monotonic()

    @cached_property
    def http(self) -> str:
        """Base URL of what the service answers about itself."""
        return f"http://{self._host.environment.get('DISPATCH_HTTP') or HTTP}"

    def ask(self, path: str) -> tuple[int, str]:
        """GET a path of the service; return the status and the text, or 0 and the error where it does not answer."""
        return status.ask(self.http + path)

    def _counters(self) -> Mapping[str, float]:
        return status.counters(self.http + "/metrics")

    def progress(self, seconds: float) -> bool | None:
        """Whether an order was worked off since the doctor began, `seconds` ago or more; None if it can't be told."""
        if not self.counters:
            return None
        time.sleep(max(0.0, self._counted_at + seconds - time.monotonic()))
        now = self._counters()
        counted = re.compile(r"dispatch_orders_(dispatched|duplicate|retried|dead)_total")
        return any(value != self.counters.get(name, 0) for name, value in now.items() if counted.match(name))
