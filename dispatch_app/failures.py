"""Why the broker can't be reached or used, and what the person who must mend it can do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from pika import exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException, AMQPConnectorStackTimeout

from . import tls, topology
from .settings import Settings


class OverflowingError(Exception):
    """The deliveries held take too much memory; the next connection shall hold at most `prefetch` of them."""

    def __init__(self, prefetch: int) -> None:
        super().__init__(f"{prefetch} at a time from now on")
        self.prefetch = prefetch


class Failure(NamedTuple):
    """A failure as the operator reads it; `code` is the exit code of `dispatch check`."""

    code: int
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause}; {self.remedy}"


# The exceptions pika raises when a connection or a channel fails.
ERRORS = (exceptions.AMQPError, AMQPConnectorException, OSError)

UNRESOLVABLE, REFUSED, TIMED_OUT, CREDENTIALS, VHOST, PERMISSION, DECLARED, TLS, OTHER, LEDGER = range(10, 20)

_LOG = "look at RabbitMQ's log"
_GRANT = "grant it: {grant}"
# The first row whose exception type fits counts.
_ERRORS: tuple[tuple[type[BaseException], int, str, str], ...] = (
    (ssl.SSLCertVerificationError, TLS, "the certificate of {where} is not trusted ({detail})",
     "set AMQP_TLS_CA to the CA that signed it, or AMQP_TLS_SERVER_NAME to the name in it"),
    (ssl.SSLError, TLS, "TLS with {where} failed ({detail})",
     "see that AMQP_PORT is a TLS port, and that the certificate and key files fit"),
    (socket.gaierror, UNRESOLVABLE, "the host name {host} can't be resolved", "correct AMQP_HOST or this host's DNS"),
    (ConnectionRefusedError, REFUSED, "{where} refuses connections", "see that RabbitMQ runs and AMQP_PORT is right"),
    (exceptions.AMQPHeartbeatTimeout, TIMED_OUT, "{where} has fallen silent (missed heartbeats)",
     "look at the network and at the broker's load"),
    (TimeoutError, TIMED_OUT, "{where} doesn't answer", "see that no firewall or security group is in the way"),
    (AMQPConnectorStackTimeout, TIMED_OUT, "{where} doesn't answer as RabbitMQ does in time",
     "see that AMQP_PORT is RabbitMQ's, and set AMQP_TLS if it is a TLS port"),
    (exceptions.IncompatibleProtocolError, OTHER, "{where} doesn't speak AMQP 0-9-1",
     "see that AMQP_PORT is RabbitMQ's, and set AMQP_TLS if it is a TLS port"),
    (exceptions.ConsumerCancelled, OTHER, "the broker cancelled the consumer",
     "nothing to do if the queue {s.queue} was deleted or moved: it is declared again"),
    (exceptions.StreamLostError, OTHER, "{where} dropped the connection ({detail})", _LOG),
    (OverflowingError, OTHER, "the messages at hand take too much memory", "nothing to do: they are taken {detail}"),
    (OSError, OTHER, "{where} can't be reached ({detail})", "look at this host's routes and firewall"),
)  # fmt: skip
# The first row whose reply code (AMQP 0-9-1, 1.2) and part of the reply text fit counts.
_REPLIES = (
    (403, "access to", PERMISSION, "user {s.user} lacks a permission ({text})", _GRANT),
    (403, "", CREDENTIALS, "{where} refuses the credentials of user {s.user}", "correct AMQP_USER and the password"),
    (530, "not found", VHOST, "the virtual host {s.vhost} doesn't exist on {where}",
     "correct AMQP_VHOST or create it: rabbitmqctl add_vhost"),
    (530, "", PERMISSION, "user {s.user} may not use the virtual host {s.vhost} on {where}", _GRANT),
    (406, "inequivalent", DECLARED, "a queue or exchange is declared otherwise ({text})",
     "delete it once it is empty, and set by a policy what it needs"),
    (405, "", DECLARED, "a queue is another connection's alone ({text})",
     "end that connection: rabbitmqctl list_queues -p {s.vhost} name owner_pid"),
    (404, "is down", OTHER, "the node of the cluster that a queue lives on is down ({text})",
     "start it; a quorum queue would survive it: playbooks/quorum.yml"),
    (406, "timed out", OTHER, "{where} waited too long for acknowledgements ({text})",
     "see above why orders were held; they are delivered again"),
    (320, "", OTHER, "{where} closed the connection ({text})",
     "nothing to do if RabbitMQ restarts or an operator closed it"),
)  # fmt: skip


def explain(error: BaseException, settings: Settings, host: str) -> Failure:
    """Return in plain words why reaching or using the broker failed."""
    known: dict[str, object] = {"where": f"{host}:{settings.port}", "host": host, "s": settings}
    known["grant"] = topology.grant(settings)
    for part in _chain(error):
        reply, text = getattr(part, "reply_code", None), str(getattr(part, "reply_text", part))
        if isinstance(part, exceptions.ProbableAuthenticationError):
            reply, text = 403, ""
        elif isinstance(part, exceptions.ProbableAccessDeniedError):
            reply = 530
        elif isinstance(part, exceptions.IncompatibleProtocolError) and (
            "SSL" in text or (settings.tls and "StreamLostError" in text)
        ):
            # In TLS 1.3 a server refuses a client's certificate only after the handshake (RFC 8446, 4.4.2.4). Where it
            # has not read yet what the client has sent since, a reset may take the place of its word.
            remedy = "set AMQP_TLS_CERT and AMQP_TLS_KEY to a certificate it accepts"
            return Failure(TLS, f"{known['where']} ended the TLS connection", remedy)
        if reply:
            for code, needle, exit_code, cause, remedy in _REPLIES:
                if reply == code and needle in text:
                    return Failure(exit_code, cause.format(text=text, **known), remedy.format(**known))
            return Failure(OTHER, f"{known['where']} answered {reply} {text}", _LOG)
        for kind, exit_code, cause, remedy in _ERRORS:
            if isinstance(part, kind):
                if isinstance(part, ssl.SSLCertVerificationError):
                    remedy = tls.remedy(part) or remedy
                known["detail"] = getattr(part, "verify_message", None) or getattr(part, "strerror", None) or part
                return Failure(exit_code, cause.format(**known), remedy.format(**known))
    return Failure(OTHER, f"{known['where']}: {error!r}", _LOG)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield every exception wrapped in `error`, the innermost first."""
    for part in (getattr(error, "exception", None), *getattr(error, "exceptions", ()), error.__cause__, *error.args):
        if isinstance(part, BaseException):
            yield from _chain(part)
    yield error
