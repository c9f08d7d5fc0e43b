"""The effect `webhook`: each order is posted to an endpoint, signed as Standard Webhooks describes it.

Headers and signature are those of its specification (standardwebhooks.com, "Webhook metadata" and "Signature scheme"):
the identifier, the time and the body, with full stops between them, by HMAC-SHA256.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import http.client
import io
import json
import re
import ssl
import time
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ..orders import Order
from ..settings import Webhook as Endpoint
from .breaker import CircuitBreaker
from .deadline import left
from .port import Breaker, EffectError

THREADS = 8
READ = 64 << 10  # octets of an answer; a connection whose answer is longer is not used again
# Who answers so is not there for now: timeouts, too many requests, gateways, a service that is down (RFC 9110).
_AWAY = {408, 425, 429, 500, 502, 503, 504}


def identifier(order_id: str) -> str:
    """Return what the receiver knows a repeated order by: the same for the same order, and safe within a header.

    That is the order's id, or its SHA-256 where it has a character that a header or the signed text can't hold.
    """
    if re.fullmatch(r"[A-Za-z0-9_-]+", order_id):
        return order_id
    return hashlib.sha256(order_id.encode()).hexdigest()


class Webhook:
    """Posts orders, on connections that are kept for the next ones."""

    name = "webhook"
    reasons: tuple[str, ...] = ("webhook-away", "webhook-refused")
    threads = THREADS
    breaker: Breaker | None

    def __init__(self, endpoint: Endpoint) -> None:
        parts = urlsplit(endpoint.url)
        self._endpoint = endpoint
        self._path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        self._new: Any = partial(http.client.HTTPConnection, parts.hostname or "", parts.port)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._new = partial(http.client.HTTPSConnection, parts.hostname or "", parts.port, context=context)
        self._idle: list[http.client.HTTPConnection] = []
        self.breaker = CircuitBreaker()

    def perform(self, order: Order) -> None:
        """Post one order. Raises EffectError."""
        body = _json(order.document).encode()
        until = time.monotonic() + self._endpoint.seconds
        headers = self._headers(identifier(order.id), int(time.time()), body)
        try:
            status, reply = self._post(body, headers, until)
        except (OSError, http.client.HTTPException) as error:
            text = "its answer took too long" if isinstance(error, TimeoutError) else str(error) or repr(error)
            raise EffectError(
                "webhook-away", f"{self._endpoint} is away: {text}", away=True, kind=type(error).__name__
            ) from error
        if 200 <= status < 300:
            return
        if status in _AWAY:
            after = _seconds(reply.get("Retry-After"))
            raise EffectError("webhook-away", f"{self._endpoint} answers {status}", away=True, after=after)
        location = f" (to {reply['Location'].partition('?')[0]!r}, not followed)" if reply.get("Location") else ""
        raise EffectError("webhook-refused", f"{self._endpoint} answers {status}{location}")

    def close(self) -> None:
        """Close the connections that are not in use; the others end with the process."""
        while self._idle:
            self._idle.pop().close()

    def _headers(self, name: str, now: int, body: bytes) -> dict[str, str]:
        signed = hmac.digest(self._endpoint.key, f"{name}.{now}.".encode() + body, "sha256")
        return {
            "Content-Type": "application/json",
            "User-Agent": "roboshop-dispatch",
            "webhook-id": name,
            "webhook-timestamp": str(now),
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        }

    def _post(self, body: bytes, headers: dict[str, str], until: float) -> tuple[int, http.client.HTTPMessage]:
        """Return status and headers of the answer. Raises OSError, or http.client's errors."""
        try:
            if kept := self._kept():
                return self._ask(kept, body, headers, until)
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            pass  # the endpoint may have closed that connection meanwhile, so a new one has to tell
        return self._ask(self._new(), body, headers, until)

    def _kept(self) -> http.client.HTTPConnection | None:
        try:
            return self._idle.pop()  # the last one used is the least likely to have been closed
        except IndexError:
            return None

    def _ask(
        self, connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str], until: float
    ) -> tuple[int, http.client.HTTPMessage]:
        try:
            connection.timeout = left(until)
            if connection.sock:
                connection.sock.settimeout(connection.timeout)
            connection.response_class = partial(_Response, until)  # type: ignore[assignment]  # as it is called
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            whole = len(response.read(READ)) < READ
        except BaseException:
            connection.close()
            raise
        if whole and response.isclosed():
            self._idle.append(connection)
        else:
            connection.close()
        return response.status, response.headers


class _Response(http.client.HTTPResponse):
    """An answer that has to be there by a time.monotonic(), however slowly its octets come."""

    def __init__(self, until: float, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Bounded(until, sock))


class _Bounded(io.RawIOBase):
    """Reads a socket until a time.monotonic(). Raises TimeoutError."""

    def __init__(self, until: float, sock: Any) -> None:
        self._until, self._sock, self._file = until, sock, sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(left(self._until))
        read: int | None = self._file.readinto(buffer)
        return read

    def close(self) -> None:
        self._file.close()
        super().close()


def _json(document: dict[str, Any]) -> str:
    """Return an order's document as JSON, in which a number that is out of any range is null."""
    try:
        return json.dumps(document, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return _json(json.loads(json.dumps(document), parse_constant=lambda _: None))


def _seconds(after: str | None) -> float:
    """Return the seconds that Retry-After asks for, which is a number or a date (RFC 9110, 10.2.3); 0 for neither."""
    if not after:
        return 0.0
    if re.fullmatch(r"[0-9]{1,9}", after):
        return float(after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())
    except ValueError:
        return 0.0
