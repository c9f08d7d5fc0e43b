"""What pika asks of the loop, except that a host out of threads is a host out of reach."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Any

from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter


class Services(SelectorIOServicesAdapter):  # type: ignore[misc]  # pika ships no types
    """pika's services on a loop; failing to start the resolver's thread fails the connection, not the loop."""

    def getaddrinfo(self, host: str, port: int, on_done: Callable[..., None], **options: Any) -> Any:
        """Look up addresses and pass them, or what went wrong, to `on_done`."""
        try:
            return super().getaddrinfo(host, port, on_done, **options)
        except RuntimeError as error:  # "can't start new thread"
            return self.call_later(0, partial(on_done, OSError(errno.EAGAIN, str(error))))
