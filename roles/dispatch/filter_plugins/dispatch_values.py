"""Checks the values of Dispatch's variables on the controller, and derives what follows from them."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[3]
if "dispatch_app" not in sys.modules:
    # As in dispatch_doctor.py: Ansible may have been started anywhere.
    _spec = importlib.util.spec_from_file_location("dispatch_app", _CHECKOUT / "dispatch_app" / "__init__.py")
    if _spec is None or _spec.loader is None:
        raise ImportError(f"{_CHECKOUT} has no dispatch_app")
    sys.modules["dispatch_app"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["dispatch_app"])

# Ansible loads this file by its path, and finds no other file beside it.
sys.path.append(str(_CHECKOUT / "roles" / "app_runbook" / "filter_utils"))

from app_secrets import number, secret_faults, unset  # noqa: E402 - only now can it be found

from dispatch_app.settings import SettingsError, load  # noqa: E402 - as above

# `_Reader.hosts` in dispatch_app/settings.py accepts the same; the zone of an IPv6 address follows a %.
HOST = re.compile(r"[A-Za-z0-9._:%-]+")
HOST_AND_PORT = re.compile(r"[^:]*:[0-9]*")
# AMQP_*, the webhook's secret, metrics, the ledger and tracing have variables of their own, and systemd sets
# STATE_DIRECTORY.
SETTING = re.compile(
    r"(?!AMQP_|STATE_DIRECTORY$|DISPATCH_(WEBHOOK_SECRET|METRICS|LEDGER(_PASSWORD|_CA)?|OTLP_(ENDPOINT|RATIO|HEADERS))$)"
    r"[A-Z][A-Z0-9_]*"
)
SIGNING = "DISPATCH_WEBHOOK_SECRET"
HTTP = "127.0.0.1:9672"  # where the consumer answers unless DISPATCH_HTTP says otherwise
# What the original program has built in, by the names of the variables that say otherwise.
ORIGINAL = {
    "amqp_port": 5672, "amqp_tls": False, "amqp_vhost": "/", "amqp_exchange": "robot-shop", "amqp_queue": "orders",
    "amqp_routing_key": "orders",
}  # fmt: skip
RUNTIME = "/run/dispatch"  # systemd makes it for the service, where that is to listen at a socket there
STOP_SECONDS = 20  # what it takes to stop unless DISPATCH_STOP_SECONDS says otherwise


def faults(values: Mapping[str, Any], inventory: str) -> list[str]:
    """All that is wrong with the values: one sentence for each fault names the variable and says what to do.

    `values` has the variables' names without ``dispatch_`` as its keys, and None for a variable that is not set.
    `inventory` is the directory of the inventory, which the remedies name.
    """
    checks = (_host, _port, _user, _password, _names, _ledger, _otlp, _environment, _hook, _metrics, _seconds)
    return [fault for check in checks for fault in check(values, inventory)]


def _host(values: Mapping[str, Any], _: str) -> list[str]:
    host = values["amqp_host"]
    hosts = [one.strip(" ") for one in str(host).split(",")]
    if host is None or not all(HOST.fullmatch(one) for one in hosts):
        said = "not set" if host is None else f'"{host}"'
        return [
            f"dispatch_amqp_host is {said}. Set it in the inventory to the address or name of your RabbitMQ, for "
            "example dispatch_amqp_host: 10.0.1.20"
        ]
    if any(HOST_AND_PORT.fullmatch(one) for one in hosts):
        return [
            f'dispatch_amqp_host is "{host}". Set it to the address or name alone, and dispatch_amqp_port to the port.'
        ]
    return []


def _port(values: Mapping[str, Any], _: str) -> list[str]:
    port = str(values["amqp_port"])
    if re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65535:
        return []
    return [
        f"dispatch_amqp_port is {port}. Set it to a port from 1 to 65535; RabbitMQ listens on 5672 unless it was told "
        "otherwise."
    ]


def _user(values: Mapping[str, Any], _: str) -> list[str]:
    if values["amqp_user"]:
        return []
    return [
        "dispatch_amqp_user is empty. Set it to the RabbitMQ user Dispatch logs in as, or leave it out for roboshop."
    ]


def _password(values: Mapping[str, Any], inventory: str) -> list[str]:
    what = f"the password of the RabbitMQ user {values['amqp_user']}"
    return secret_faults("dispatch_amqp_password", values["amqp_password"], what, inventory)


def _names(values: Mapping[str, Any], _: str) -> list[str]:
    return [
        f"dispatch_{name} is empty. Set it, or leave it out for its default."
        for name in ("amqp_vhost", "amqp_exchange", "amqp_queue", "amqp_routing_key")
        if not values[name]
    ]


def _ledger(values: Mapping[str, Any], inventory: str) -> list[str]:
    url, password, ca = values["ledger"], values["ledger_password"], values["ledger_ca"]
    if not url:
        return [
            f"dispatch_{name} is set, and dispatch_ledger is not. Set both, or neither."
            for name in ("ledger_password", "ledger_ca")
            if values[name]
        ]
    if password is not None and not isinstance(password, str):
        return [number("dispatch_ledger_password")]
    # The CA will be a file on the host; any file stands for it here.
    given = {"DISPATCH_LEDGER": url, "DISPATCH_LEDGER_PASSWORD": password or "", "DISPATCH_LEDGER_CA": ca and __file__}
    _asked, problems = _consumer_s_word(given, "")
    return [
        unset("dispatch_ledger_password", "the password of dispatch_ledger's user", inventory)
        if problem.startswith("DISPATCH_LEDGER_PASSWORD")
        else f"{re.sub(r'DISPATCH_LEDGER[A-Z_]*', lambda name: name[0].lower(), problem)}."
        for problem in problems
    ]


def _otlp(values: Mapping[str, Any], _: str) -> list[str]:
    endpoint, headers = values["otlp_endpoint"], values["otlp_headers"]
    if headers is not None and not isinstance(headers, str):
        return [number("dispatch_otlp_headers")]
    if not endpoint:
        alone = "dispatch_otlp_headers is set, and dispatch_otlp_endpoint is not. Set both, or neither."
        return [alone] if headers else []
    given = {
        "DISPATCH_OTLP_ENDPOINT": endpoint, "DISPATCH_OTLP_RATIO": values["otlp_ratio"],
        "DISPATCH_OTLP_HEADERS": headers or "",
    }  # fmt: skip
    _asked, problems = _consumer_s_word(given, "")
    return [f"{re.sub(r'DISPATCH_OTLP_[A-Z]+', lambda name: name[0].lower(), problem)}." for problem in problems]


def _environment(values: Mapping[str, Any], _: str) -> list[str]:
    environment = values["environment"]
    if not isinstance(environment, Mapping):
        return [
            "dispatch_environment is not a dictionary. Set it to settings by their names, such as "
            "{DISPATCH_RETENTION_DAYS: 90}."
        ]
    ours = {name: value for name, value in environment.items() if SETTING.fullmatch(str(name))}
    asked, problems = _consumer_s_word(ours, values["webhook_secret"])
    return [
        f"dispatch_environment has the setting {name}. Take a name that dispatch_app/README.md gives; for AMQP_* there "
        f"are the variables dispatch_amqp_*, for DISPATCH_LEDGER* dispatch_ledger*, for DISPATCH_OTLP_* "
        f"dispatch_otlp_*, for the webhook's secret dispatch_webhook_secret, for DISPATCH_METRICS dispatch_metrics, "
        f"and STATE_DIRECTORY is systemd's."
        f"{_closest(str(name), asked)}"
        for name in environment
        if not SETTING.fullmatch(str(name)) or (str(name).startswith("DISPATCH_") and name not in asked)
    ] + [_named(problem) for problem in problems]


def _closest(name: str, known: set[str]) -> str:
    """A sentence with the known setting whose name is most like the given one, if any is."""
    closest = get_close_matches(name.upper(), sorted(one for one in known if one.startswith("DISPATCH_")), n=1)
    return f" The closest such name is {closest[0]}." if closest else ""


def _named(problem: str) -> str:
    """A problem of the consumer's settings as a sentence that begins with the variable it comes from."""
    if problem.startswith(SIGNING):
        return f"dispatch_webhook_secret{problem.removeprefix(SIGNING)}."
    return f"dispatch_environment.{problem}."


def _consumer_s_word(environment: Mapping[str, Any], webhook_secret: object) -> tuple[set[str], list[str]]:
    """The names of the settings that this checkout's consumer knows, and what it finds wrong with those that are given.

    An artifact of another version may think otherwise; its own `check`, on the host, has the last word before a switch.
    """
    given = {str(name): str(value) for name, value in environment.items() if str(name).startswith("DISPATCH_")}
    reading = _Reading({**given, "AMQP_HOST": "rabbit", "AMQP_PASS": "…", SIGNING: str(webhook_secret or "")})
    try:
        load(reading)
    except SettingsError as error:
        return reading.asked, error.problems
    return reading.asked, []


class _Reading(dict[str, str]):
    """An environment that remembers which names it was asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


def _hook(values: Mapping[str, Any], _: str) -> list[str]:
    environment = values["environment"]
    if not values["hook"]:
        return []
    for name in ("DISPATCH_HOOK", "DISPATCH_WEBHOOK_URL"):
        if isinstance(environment, Mapping) and environment.get(name):
            return [
                f"dispatch_hook is set, and dispatch_environment has {name}, too. Keep one: an order has one effect."
            ]
    _asked, problems = _consumer_s_word({"DISPATCH_HOOK": values["hook"]}, "")
    return [f"dispatch_hook{problem.removeprefix('DISPATCH_HOOK')}." for problem in problems]


def _metrics(values: Mapping[str, Any], _: str) -> list[str]:
    metrics = str(values["metrics"])
    _asked, problems = _consumer_s_word({"DISPATCH_METRICS": metrics}, "")
    if not problems and metrics.startswith("unix:") and not metrics.startswith(f"unix:{RUNTIME}/"):
        problems = [f"DISPATCH_METRICS is {metrics!r}, where the service can't write; set a path in {RUNTIME}"]
    return [f"dispatch_metrics{problem.removeprefix('DISPATCH_METRICS')}." for problem in problems]


def _seconds(values: Mapping[str, Any], _: str) -> list[str]:
    if re.fullmatch(r"0*[1-9][0-9]*", str(values["drain_seconds"])):
        return []
    return [
        f"dispatch_drain_seconds is {values['drain_seconds']}. Set it to the seconds that the old RabbitMQ's queue may "
        "take to become empty."
    ]


def original_faults(values: Mapping[str, Any], own_zip: str) -> list[str]:
    """Why the original program, which has most settings built in, can't serve with these values; as in `faults`.

    `own_zip` is the artifact of this repository, which checks the settings for a program that has no check.
    """
    what, remedy = "the artifact is the original program or one like it", "take this repository's own artifact"
    found = [
        f"dispatch_{name} is {values[name]}, but {what}, which has {built_in} built in. Leave the variable out, "
        f"or {remedy}."
        for name, built_in in ORIGINAL.items()
        if str(values[name]) != str(built_in)
    ]
    if values["ledger"]:
        found.append(
            f"dispatch_ledger is {values['ledger']}, but {what}, which keeps no ledger. Leave the variable out, "
            f"or {remedy}."
        )
    if values["otlp_endpoint"]:
        found.append(
            f"dispatch_otlp_endpoint is {values['otlp_endpoint']}, but {what}, which exports no spans. Leave the "
            f"variable out, or {remedy}."
        )
    if "," in str(values["amqp_host"]):
        found.append(
            f"dispatch_amqp_host is {values['amqp_host']}, but {what}, which takes one host. Set it to one, "
            f"or {remedy}."
        )
    if re.search(r"[\r\n\0]", str(values["amqp_password"] or "")):
        found.append(
            f"dispatch_amqp_password has a line break, but {what}, whose environment can't hold that. Give the "
            "RabbitMQ user a password of one line."
        )
    if not Path(own_zip).is_file():
        found.append(
            f"dist/dispatch.zip does not exist, but {what}, which can't check its settings itself. Build that zip with "
            "`make artifact`: it checks them."
        )
    return found


def settings(further: object, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The consumer's environment: the further settings, and those that have variables of their own.

    An effect that nobody wants stands in no environment.
    """
    wanted = {name: value for name, value in fixed.items() if value or not name.startswith("DISPATCH_")}
    return {**(further if isinstance(further, Mapping) else {}), **wanted}


def directives(given: object, hook: object, metrics: object) -> object:
    """The directives that replace those of the sandbox, or add to them: those given, and what is needed."""
    if not isinstance(given, Mapping):
        return given
    # Where a hook's process takes too much memory, the kernel ends that one alone, and the service goes on.
    needed = {"OOMPolicy": "continue"} if hook else {}
    if str(metrics).startswith(f"unix:{RUNTIME}/"):
        needed["RuntimeDirectory"] = Path(RUNTIME).name
    return {**needed, **given}


def ready_url(environment: object) -> str:
    """The URL at which the consumer says whether it is ready, as its further settings make it."""
    # A wildcard address means every interface and can't be connected to; loopback is one of the interfaces.
    return (
        f"http://{re.sub(r'^0[.]0[.]0[.]0:', '127.0.0.1:', str(_setting(environment, 'DISPATCH_HTTP', HTTP)))}/readyz"
    )


def stop_seconds(environment: object) -> int:
    """The seconds systemd gives the consumer to stop: more than the consumer takes to finish what it has begun."""
    given = str(_setting(environment, "DISPATCH_STOP_SECONDS", STOP_SECONDS))
    return (int(given) if re.fullmatch(r"[0-9]+", given) else STOP_SECONDS) + 10


def _setting(environment: object, name: str, default: object) -> object:
    return (environment.get(name) if isinstance(environment, Mapping) else None) or default


class FilterModule:
    """The filters of this file, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "dispatch_faults": faults,
            "dispatch_original_faults": original_faults,
            "dispatch_settings": settings,
            "dispatch_directives": directives,
            "dispatch_ready_url": ready_url,
            "dispatch_stop_seconds": stop_seconds,
        }
