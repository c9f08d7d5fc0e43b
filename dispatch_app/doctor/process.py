"""What the running service says of itself by HTTP."""

from __future__ import annotations

import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cached_property
from http.client import HTTPException

from ..settings import HTTP
from .host import Host

_SECONDS, _MOST = 2.0, 1 << 20  # for one answer, and octets of it


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
        answers: list[tuple[int, str]] = []
        # A timeout of the socket's starts anew with every octet, so an answer could take for ever.
        asking = threading.Thread(target=lambda: answers.append(_get(self.http + path)), daemon=True)
        asking.start()
        asking.join(_SECONDS)
        return answers[0] if answers else (0, f"no whole answer within {_SECONDS:g} s")

    def _counters(self) -> Mapping[str, float]:
        """The service's metrics by name, labels included; none where it does not answer with any."""
        status, text = self.ask("/metrics")
        lines = (line.rpartition(" ") for line in text.splitlines() if status == 200 and not line.startswith("#"))
        try:
            return {name: float(value) for name, _, value in lines}
        except ValueError:
            return {}

    def progress(self, seconds: float) -> bool | None:
        """Whether an order was worked off since the doctor began, `seconds` ago or more; None if it can't be told."""
        if not self.counters:
            return None
        time.sleep(max(0.0, self._counted_at + seconds - time.monotonic()))
        now = self._counters()
        counted = re.compile(r"dispatch_orders_(dispatched|duplicate|retried|dead)_total")
        return any(value != self.counters.get(name, 0) for name, value in now.items() if counted.match(name))


def _get(url: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=1) as answer:
            return int(answer.status), answer.read(_MOST).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_MOST).decode("utf-8", "replace")
    except (OSError, ValueError, HTTPException) as error:
        return 0, str(error)
