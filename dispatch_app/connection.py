"""How to reach the broker, and what a failure means to the person who must mend it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import pika
from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from .settings import Settings

# Seconds. A dead peer is noticed after heartbeat + 5 s by pika and after two missed ones by
# RabbitMQ, whose guide calls 5 to 20 s optimal; below that, a stalled disk looks like one.
HEARTBEAT = 15


class Failure(NamedTuple):
    """A failure as an operator reads it: exit code of `check`, cause, next step."""

    code: int
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause}; {self.remedy}"


UNRESOLVABLE, REFUSED, TIMED_OUT, CREDENTIALS, VHOST, PERMISSION, DECLARED, TLS, OTHER = range(10, 19)


def parameters(settings: Settings, host: str) -> pika.ConnectionParameters:
    """Return pika's parameters for one host. Raises ssl.SSLError, OSError for bad key files."""
    options = None
    if settings.tls:
        context = ssl.create_default_context(cafile=settings.tls.ca)
        if settings.tls.cert:
            context.load_cert_chain(settings.tls.cert, settings.tls.key)
        options = pika.SSLOptions(context, settings.tls.server_name or host)
    return pika.ConnectionParameters(
        host=host,
        port=settings.port,
        virtual_host=settings.vhost,
        credentials=pika.PlainCredentials(settings.user, settings.password),
        ssl_options=options,
        heartbeat=HEARTBEAT,
        socket_timeout=5,
        stack_timeout=10,
        client_properties={"connection_name": f"dispatch@{socket.gethostname()}"},
    )


def explain(error: BaseException, settings: Settings, host: str) -> Failure:
    """Say in plain words why reaching or using the broker failed."""
    chain = list(_chain(error))
    where = f"{host}:{settings.port}"
    for part in chain:
        if isinstance(part, ssl.SSLCertVerificationError):
            return Failure(TLS, f"the certificate of {where} is not trusted ({part.verify_message})",
                           "set AMQP_TLS_CA to the CA that signed it, or AMQP_TLS_SERVER_NAME to its name")  # fmt: skip
        if isinstance(part, ssl.SSLError):
            return Failure(TLS, f"TLS with {where} failed ({part.reason or part})",
                           "see that AMQP_PORT is a TLS port and that the client certificate is accepted")  # fmt: skip
        if isinstance(part, socket.gaierror):
            return Failure(UNRESOLVABLE, f"the host name {host} can't be resolved",
                           "correct AMQP_HOST or this host's DNS")  # fmt: skip
        if isinstance(part, ConnectionRefusedError):
            return Failure(REFUSED, f"{where} refuses connections",
                           "see that RabbitMQ runs there and that AMQP_PORT is right")  # fmt: skip
        if isinstance(part, exceptions.AMQPHeartbeatTimeout):
            return Failure(TIMED_OUT, f"{where} sent nothing for {HEARTBEAT} s (missed heartbeats)",
                           "look at the network and at the broker's load")  # fmt: skip
        if isinstance(part, (TimeoutError, workflow.AMQPConnectorStackTimeout)):
            return Failure(TIMED_OUT, f"{where} doesn't answer",
                           "see that a firewall or security group lets this host reach that port")  # fmt: skip
        if isinstance(part, (exceptions.ConnectionClosed, exceptions.ChannelClosed)):
            return _closed(part.reply_code, part.reply_text, settings, where)
        if isinstance(part, exceptions.ProbableAuthenticationError):
            return _closed(403, "", settings, where)
        if isinstance(part, exceptions.ProbableAccessDeniedError):
            return _closed(530, str(part), settings, where)
        if isinstance(part, exceptions.IncompatibleProtocolError):
            return Failure(OTHER, f"{where} doesn't speak AMQP 0-9-1",
                           "see that AMQP_PORT is RabbitMQ's AMQP port, and AMQP_TLS if it wants TLS")  # fmt: skip
        if isinstance(part, exceptions.StreamLostError):
            return Failure(OTHER, f"{where} dropped the connection", "look at RabbitMQ's log")
        if isinstance(part, OSError) and part.strerror:
            return Failure(OTHER, f"{where} can't be reached ({part.strerror})",
                           "look at this host's routes and firewall")  # fmt: skip
    return Failure(OTHER, f"{where}: {chain[-1]!r}", "look at RabbitMQ's log")


def _closed(code: int, text: str, settings: Settings, where: str) -> Failure:
    """Explain a Connection.Close or Channel.Close by its reply code (AMQP 0-9-1, 1.2)."""
    user, vhost = settings.user, settings.vhost
    if code == 403 and "access to" in text:
        return Failure(PERMISSION, f"user {user} lacks a permission ({text})",
                       f"grant it: rabbitmqctl set_permissions -p {vhost} {user} …")  # fmt: skip
    if code == 403:
        return Failure(CREDENTIALS, f"{where} refuses the credentials of user {user}",
                       "correct AMQP_USER and the password")  # fmt: skip
    if code == 530 and "not found" in text:
        return Failure(VHOST, f"the virtual host {vhost} doesn't exist on {where}",
                       "correct AMQP_VHOST or create it: rabbitmqctl add_vhost")  # fmt: skip
    if code == 530:
        return Failure(PERMISSION, f"user {user} may not use the virtual host {vhost}",
                       f"grant it: rabbitmqctl set_permissions -p {vhost} {user} …")  # fmt: skip
    if code == 406 and "inequivalent" in text:
        return Failure(DECLARED, f"a queue or exchange exists, declared otherwise ({text})",
                       "delete it once empty, or set what it needs by a policy instead")  # fmt: skip
    if code == 406 and "timed out" in text:
        return Failure(OTHER, f"the broker waited too long for acknowledgements ({text})",
                       "see why orders were held; they are delivered again")  # fmt: skip
    if code == 320:
        return Failure(OTHER, f"{where} closed the connection ({text})",
                       "none if the broker is being restarted or an operator closed it")  # fmt: skip
    return Failure(OTHER, f"{where} answered {code} {text}", "look at RabbitMQ's log")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield every exception wrapped in `error`, the innermost first."""
    inner = [getattr(error, "exception", None), error.__cause__, *getattr(error, "exceptions", ())]
    for part in [*inner, *error.args]:
        if isinstance(part, BaseException):
            yield from _chain(part)
    yield error
