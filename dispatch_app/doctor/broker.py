"""What the doctor asks of the broker, without changing anything there.

By AMQP it makes passive declarations, and two requests that the broker checks for permission and then has to refuse: a
binding of a queue that does not exist, and a consumer whose priority is not a number. What AMQP can't tell it asks the
management API for, with GET. It declares, publishes and consumes nothing.
"""

from __future__ import annotations

import contextlib
import email.utils
import importlib.util
import json
import re
import socket
import time
import urllib.error
import urllib.request
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import quote

from .. import tls
from ..settings import Settings
from .table import LookError

_SECONDS = 2.0  # for any one answer
_NO_CONSUMER = {"x-priority": "none"}


class Attempt(NamedTuple):
    """How reaching one of the hosts in AMQP_HOST went; `kind` is a finding's id, or empty where it worked."""

    host: str
    kind: str
    evidence: str


class Depth(NamedTuple):
    """How many messages wait in a queue, and how many consumers it has."""

    ready: int
    consumers: int


class Broker:
    """One broker, by the settings of the service; each thing is asked when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._conn: Any = None
        self._clock: float | None = None
        self.malformed = False  # the broker's certificate, or its CA's

    def close(self) -> None:
        if self._conn is not None and self._conn.is_open:
            self._conn.close()

    # -- the network ------------------------------------------------------------------

    @cached_property
    def attempts(self) -> list[Attempt]:
        """A TCP connection to each host, all at once."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(self._reach, self.settings.hosts))

    def _reach(self, host: str) -> Attempt:
        where = f"{host}:{self.settings.port}"
        try:
            with socket.create_connection((host, self.settings.port), timeout=_SECONDS):
                return Attempt(host, "", f"{where} accepts connections")
        except socket.gaierror as error:
            return Attempt(host, "broker-unresolvable", f"looking up {host} gives: {error.strerror}")
        except ConnectionRefusedError:
            return Attempt(host, "broker-refused", f"{where} refuses the connection")
        except (socket.timeout, TimeoutError):  # noqa: UP041 - two things before Python 3.10
            return Attempt(host, "broker-filtered", f"{where} does not answer within {_SECONDS:g} s")
        except OSError as error:
            return Attempt(host, "broker-unreachable", f"connecting to {where} fails: {error.strerror or error}")

    @property
    def host(self) -> str | None:
        """The first host that accepts connections."""
        return next((attempt.host for attempt in self.attempts if not attempt.kind), None)

    @cached_property
    def own_address(self) -> str:
        """The address this host has for the broker; nothing is sent to find out."""
        with contextlib.suppress(OSError):
            family, _, _, _, address = socket.getaddrinfo(self.settings.hosts[0], self.settings.port)[0]
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
        return socket.gethostname()

    def address(self, host: str) -> str:
        """The first address of one of the hosts, or its name where that can't be looked up."""
        with contextlib.suppress(OSError):
            return str(socket.getaddrinfo(host, self.settings.port, type=socket.SOCK_STREAM)[0][4][0])
        return host

    # -- AMQP -------------------------------------------------------------------------

    @cached_property
    def login(self) -> Attempt:
        """How logging in to the broker went, TLS included. Raises LookError."""
        host = self.host
        if host is None:
            raise LookError("no broker can be reached")
        if importlib.util.find_spec("pika") is None:
            raise LookError("this Python has no pika; run playbooks/doctor.yml, which brings it")
        import pika

        from .. import failures
        from ..amqp import connection

        try:
            parameters = connection.parameters(self.settings, host, "doctor")
            parameters.socket_timeout, parameters.stack_timeout = _SECONDS, 1.5 * _SECONDS
            self._conn = pika.BlockingConnection(parameters)
        except failures.ERRORS as error:
            failure = failures.explain(error, self.settings, host)
            self.malformed = failure.remedy == tls.MALFORMED
            kinds = {
                failures.CREDENTIALS: "bad-credentials", failures.VHOST: "vhost-missing",
                failures.PERMISSION: "permission-missing", failures.TLS: "tls-untrusted",
            }  # fmt: skip
            kind = kinds.get(failure.code, "not-amqp")
            if kind == "bad-credentials" and self.settings.user == "guest" and not _loopback(host):
                kind = "guest-remote"
            elif kind == "tls-untrusted" and "expired" in failure.cause:
                kind = "tls-expired"
            return Attempt(host, kind, failure.cause)
        return Attempt(host, "", f"user {self.settings.user} is logged in")

    def refusal(self, request: str, *args: Any, **options: Any) -> tuple[int, str]:
        """Make a request on a channel of its own; return the reply code and text it was refused with, 0 if it wasn't.

        Raises LookError.
        """
        if self.login.kind:
            raise LookError("nobody is logged in")
        from pika import exceptions

        try:
            channel = self._conn.channel()
            answer = getattr(channel, request)(*args, **options)
            channel.close()
        except exceptions.ChannelClosedByBroker as error:
            return error.reply_code, error.reply_text
        except (exceptions.AMQPError, OSError) as error:
            raise LookError(f"the broker ended the connection ({error!r})") from error
        self._answer = answer
        return 0, ""

    def depth(self, queue: str) -> Depth | None:
        """How full a queue is; None where there is none. Raises LookError, also where its node is down."""
        code, text = self.refusal("queue_declare", queue, passive=True)
        if code == 404 and "no queue " in text:
            return None
        if code:
            raise LookError(text)
        method = self._answer.method
        return Depth(method.message_count, method.consumer_count)

    def denied(self) -> str | None:
        """What the broker says where the user may not bind or read the order queue. Raises LookError."""
        s = self.settings
        requests: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = (
            ("queue_declare", (s.queue,), {"passive": True}),
            ("queue_bind", (f"{s.queue}.nowhere", s.exchange, s.routing_key), {}),
            ("basic_consume", (s.queue, lambda *_: None), {"arguments": _NO_CONSUMER}),
        )
        for request, args, options in requests:
            code, text = self.refusal(request, *args, **options)
            if code == 403:
                return text
        return None

    # -- the management API -----------------------------------------------------------

    @cached_property
    def clock(self) -> float:
        """Seconds by which this host's clock is ahead of the broker's, to the second. Raises LookError."""
        self.get("/api/whoami")
        if self._clock is None:
            raise LookError("RabbitMQ's management API tells no time")
        return self._clock

    def get(self, path: str) -> Any:
        """GET a path of the management API; None where there is no such thing. Raises LookError."""
        s, host = self.settings, self.host
        if host is None:
            raise LookError("no broker can be reached")
        # Where AMQP is encrypted, the password does not cross the network in clear for this, either.
        where = f"https://{host}:15671" if s.tls else f"http://{host}:15672"
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if s.tls:
            handlers.append(urllib.request.HTTPSHandler(context=tls.context(s.tls)))
        token = b64encode(f"{s.user}:{s.password}".encode()).decode()
        request = urllib.request.Request(where + path, headers={"Authorization": f"Basic {token}"})  # noqa: S310 - http(s) alone
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=_SECONDS) as answer:
                if told := email.utils.parsedate_to_datetime(answer.headers["Date"]):
                    self._clock = time.time() - told.timestamp()
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise LookError(
                    f"RabbitMQ's management API at {where} answers {error.code} to user {s.user}"
                ) from error
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "reason", error)
            raise LookError(f"RabbitMQ's management API at {where} can't be used ({reason})") from error

    @cached_property
    def _vhost(self) -> str:
        return quote(self.settings.vhost, safe="")

    @cached_property
    def order_queue(self) -> dict[str, Any]:
        """The order queue, by the management API; its statistics are up to five seconds old. Raises LookError."""
        return self.queue(self.settings.queue) or {}

    def queue(self, name: str) -> dict[str, Any] | None:
        """A queue, by the management API. Raises LookError."""
        found = self.get(f"/api/queues/{self._vhost}/{quote(name, safe='')}")
        return dict(found) if found else None

    @cached_property
    def version(self) -> tuple[int, ...]:
        """RabbitMQ's version, as far as it is numbers. Raises LookError."""
        told = str((self.get("/api/overview") or {}).get("rabbitmq_version", ""))
        return tuple(int(part) for part in re.findall(r"\d+", told)[:3])

    def bindings(self) -> list[str]:
        """The routing keys that bind the order queue to the exchange. Raises LookError."""
        s = self.settings
        pair = f"e/{quote(s.exchange, safe='')}/q/{quote(s.queue, safe='')}"
        return [str(binding["routing_key"]) for binding in self.get(f"/api/bindings/{self._vhost}/{pair}") or ()]

    def nodes(self) -> list[dict[str, Any]]:
        """The broker's nodes, with their alarms and limits. Raises LookError."""
        return list(self.get("/api/nodes") or ())


def _loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
