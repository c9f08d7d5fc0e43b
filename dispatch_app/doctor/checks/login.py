"""The login: does RabbitMQ let the user in, with its permissions?"""

from __future__ import annotations

import shlex
from functools import partial

from ... import topology
from ..case import Case
from ..table import BROKER, ERROR, Check, Finding
from . import needs
from .fixes import provision


def logged_in(kind: str, case: Case) -> Finding | None:
    found, s = case.broker.login, case.broker.settings
    if found.kind != kind:
        return None
    if kind == "tls-expired":
        return provision(found.evidence, "RabbitMQ's certificate, or its CA's, has expired.", "site")
    if kind == "tls-untrusted" and case.broker.malformed:
        return provision(found.evidence, "RabbitMQ's certificate or its CA is malformed: it has to be issued anew.",
                         "rabbitmq")  # fmt: skip
    if kind == "tls-untrusted":
        return provision(found.evidence, "This host does not trust RabbitMQ's certificate: "
                          "dispatch_amqp_tls_ca has to be the CA that signed it.")  # fmt: skip
    if kind == "bad-credentials":
        return provision(found.evidence, "User or password are wrong; the play sets both ends.", "site")
    if kind == "guest-remote":
        return provision(found.evidence, "RabbitMQ lets guest in from its own host only: use another user.")
    if kind == "vhost-missing":
        return Finding(found.evidence, "The virtual host does not exist.",
                       f"rabbitmqctl add_vhost {shlex.quote(s.vhost)} && {topology.grant(s)}", BROKER)  # fmt: skip
    return Finding(found.evidence, "The user may not use the virtual host.", topology.grant(s), BROKER)


def permission_missing(case: Case) -> Finding | None:
    denied = None if case.broker.login.kind else case.broker.denied()
    if denied is None:
        return logged_in("permission-missing", case)
    return Finding(denied, "The user lacks a permission that Dispatch needs; the fix replaces those it has.",
                   topology.grant(case.broker.settings), BROKER)  # fmt: skip


CHECKS = (
    Check("tls-expired", "login", ERROR, "RabbitMQ's certificate is valid", partial(logged_in, "tls-expired"),
          needs.REACH),
    Check("tls-untrusted", "login", ERROR, "RabbitMQ's certificate is trusted", partial(logged_in, "tls-untrusted"),
          needs.REACH),
    Check("guest-remote", "login", ERROR, "the user may log in from here", partial(logged_in, "guest-remote"),
          needs.REACH),
    Check("bad-credentials", "login", ERROR, "user and password are right", partial(logged_in, "bad-credentials"),
          needs.REACH),
    Check("vhost-missing", "login", ERROR, "the virtual host exists", partial(logged_in, "vhost-missing"), needs.REACH),
    Check("permission-missing", "login", ERROR, "the user has its permissions", permission_missing, needs.LOGIN[:-1]),
)  # fmt: skip
