"""Settings from the environment, all of them checked before anything else happens."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from . import database

HTTP_PORT = 9672
HTTP = f"127.0.0.1:{HTTP_PORT}"  # where the service answers by HTTP by default; the roles ask there, too
# Octets; far more than any order has. Decoded, a body takes up to 50 times its size, and MemoryMax= is 512 MiB.
MAX_BODY = 1 << 20
RETRY_DELAYS = (1, 5, 30, 120, 300)  # seconds
LOG_LEVELS = ("info", "warning", "error")
CREDENTIAL = "amqp_password"  # a file in $CREDENTIALS_DIRECTORY (systemd.exec(5), LoadCredential=)
WEBHOOK_CREDENTIAL = "webhook_secret"
LEDGER_CREDENTIAL = "ledger_password"
OTLP_CREDENTIAL = "otlp_headers"
OTLP_PATH = "/v1/traces"  # what OTLP/HTTP appends to a collector's URL for spans
# The variables that hold what these credentials do; any other credential's file is named by a variable.
SECRETS = {
    CREDENTIAL: "AMQP_PASS", WEBHOOK_CREDENTIAL: "DISPATCH_WEBHOOK_SECRET",
    LEDGER_CREDENTIAL: "DISPATCH_LEDGER_PASSWORD", OTLP_CREDENTIAL: "DISPATCH_OTLP_HEADERS",
}  # fmt: skip
_ON, _OFF = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


class SettingsError(Exception):
    """Settings are bad; each of `problems` names its variable, what is wrong with it and what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Tls:
    """How to trust the broker and how to prove this client's identity: paths, and the name to expect."""

    ca: str | None
    cert: str | None
    key: str | None
    server_name: str | None


@dataclass(frozen=True)
class Webhook:
    """Where each order is posted; no repr shows the key, and str() leaves out the query, which may hold a token."""

    url: str
    key: bytes = field(repr=False)  # for the signature
    seconds: int  # for one order, from the connection to the end of the answer

    def __str__(self) -> str:
        return self.url.partition("?")[0]


@dataclass(frozen=True)
class Otlp:
    """Where spans are exported to, and which; no repr shows the headers, which may hold a token."""

    url: str  # without the path of OTLP_PATH
    headers: Mapping[str, str] = field(repr=False)
    ratio: float  # of the orders whose publisher has not decided whether they are traced, from 0 to 1


@dataclass(frozen=True)
class Interface:
    """A port of whatever IPv4 address a network interface has."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"%{self.name}:{self.port}"


if TYPE_CHECKING:
    Place = tuple[str, int] | Interface | Path  # where HTTP is served: an address, an interface or a Unix socket


@dataclass(frozen=True)
class Settings:
    """What the subcommands need to know; no repr shows the password."""

    hosts: tuple[str, ...]
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    exchange: str
    queue: str
    routing_key: str
    tls: Tls | None
    http: tuple[str, int]
    metrics: Place | None  # where HTTP is served besides, for those who ask from elsewhere
    prefetch: int  # at most this many deliveries not yet acknowledged
    max_body: int  # octets of a body; a larger one is not decoded
    hook: str | None
    hook_seconds: int  # for one call of the hook
    webhook: Webhook | None
    rate: int  # orders per second at most; 0 means as many as there are
    event_exchange: str | None  # to which each dispatched order is announced
    retry_delays: tuple[int, ...]  # seconds an order waits before each new try; after the last one it is dead-lettered
    log_level: str
    ledger: database.Database | None  # of the whole fleet; without it each host has a ledger of its own
    retention_days: int  # 0 means for ever
    otlp: Otlp | None  # without it nothing is traced
    stop_seconds: int  # to drain and close; systemd's TimeoutStopSec= must be greater

    def url(self, host: str) -> str:
        """Return the connection as an AMQP URI, without the password."""
        where = f"[{host}]" if ":" in host else host
        vhost = quote(self.vhost, safe="")
        return f"amqp{'s' if self.tls else ''}://{quote(self.user)}@{where}:{self.port}/{vhost}"


def load(env: Mapping[str, str]) -> Settings:
    """Read all settings except the state directory. Raises SettingsError."""
    reader = _Reader(env)
    tls = reader.tls()
    settings = Settings(
        hosts=reader.hosts(),
        port=reader.number("AMQP_PORT", 5671 if tls else 5672, 1, 65535),
        user=reader.name("AMQP_USER", "roboshop"),
        password=reader.password(),
        vhost=reader.name("AMQP_VHOST", "/"),
        exchange=reader.name("AMQP_EXCHANGE", "robot-shop"),
        queue=reader.name("AMQP_QUEUE", "orders", longest=240),  # room for ".retry.86400s"
        routing_key=reader.name("AMQP_ROUTING_KEY", "orders"),
        tls=tls,
        http=reader.http(),
        metrics=reader.metrics(),
        prefetch=reader.number("DISPATCH_PREFETCH", 4000, 1, 65535),
        max_body=reader.number("DISPATCH_MAX_BODY", MAX_BODY, 1, 8 << 20),
        hook=reader.hook(),
        hook_seconds=reader.number("DISPATCH_HOOK_SECONDS", 10, 1, 3600),
        webhook=reader.webhook(),
        rate=reader.number("DISPATCH_RATE_PER_SECOND", 0, 0, 100_000),
        event_exchange=reader.name("DISPATCH_EVENT_EXCHANGE", "") or None,
        retry_delays=reader.delays(),
        log_level=reader.log_level(),
        ledger=reader.ledger(),
        retention_days=reader.number("DISPATCH_RETENTION_DAYS", 0, 0, 36500),
        otlp=reader.otlp(),
        stop_seconds=reader.number("DISPATCH_STOP_SECONDS", 20, 1, 3600),
    )
    if reader.problems:
        raise SettingsError(reader.problems)
    return settings


def ledger(env: Mapping[str, str]) -> database.Database | None:
    """Return the ledger's database, if it is in one, whatever the other settings are. Raises SettingsError."""
    reader = _Reader(env)
    found = reader.ledger()
    if reader.problems:
        raise SettingsError(reader.problems)
    return found


def state_directory(env: Mapping[str, str]) -> Path:
    """Return $STATE_DIRECTORY. Raises SettingsError."""
    directory = Path(env.get("STATE_DIRECTORY", "").partition(":")[0])  # there may be several (systemd.exec(5))
    if not (directory.is_absolute() and directory.is_dir()):
        remedy = "systemd's StateDirectory= sets it; by hand: STATE_DIRECTORY=/var/lib/dispatch"
        raise SettingsError([f"STATE_DIRECTORY is not an existing absolute directory; {remedy}"])
    return directory


class _Reader:
    """Reads settings one by one, and collects problems instead of stopping at the first."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.problems: list[str] = []

    def _bad(self, variable: str, wrong: str, remedy: str) -> None:
        self.problems.append(f"{variable} {wrong}; {remedy}")

    def name(self, variable: str, default: str, longest: int = 255) -> str:
        value = self._env.get(variable) or default
        if len(value.encode("utf-8", "replace")) > longest or not value.isprintable():
            self._bad(variable, "is too long or not printable", f"set at most {longest} printable octets")
        return value

    def number(self, variable: str, default: int, low: int, high: int) -> int:
        value = self._env.get(variable) or str(default)
        if re.fullmatch(r"[0-9]{1,9}", value) and low <= int(value) <= high:
            return int(value)
        self._bad(variable, f"is {value!r}", f"set a whole number from {low} to {high}")
        return default

    def delays(self) -> tuple[int, ...]:
        value = self._env.get("DISPATCH_RETRY_DELAYS") or ",".join(map(str, RETRY_DELAYS))
        delays = [delay.strip() for delay in value.split(",")]
        # A day fits into the name of a queue; a 0 would have a failing order go round and round without a pause.
        if len(delays) <= 10 and all(re.fullmatch("[1-9][0-9]{0,4}", d) and int(d) <= 86400 for d in delays):
            return tuple(map(int, delays))
        remedy = "set one to ten numbers of seconds from 1 to 86400, separated by commas, such as 1,5,30,120,300"
        self._bad("DISPATCH_RETRY_DELAYS", f"is {value!r}", remedy)
        return RETRY_DELAYS

    def log_level(self) -> str:
        value = (self._env.get("DISPATCH_LOG_LEVEL") or "info").lower()
        if value not in LOG_LEVELS:
            self._bad("DISPATCH_LOG_LEVEL", f"is {value!r}", f"set one of {', '.join(LOG_LEVELS)}")
        return value

    def hosts(self) -> tuple[str, ...]:
        hosts = tuple(host.strip() for host in self._env.get("AMQP_HOST", "").split(","))
        remedy = "set RabbitMQ's host name or IP address, several with commas in between"
        for host in hosts:
            if not host:
                self._bad("AMQP_HOST", "is empty or has an empty entry", remedy)
            elif re.search("[<>]", host):
                self._bad("AMQP_HOST", f"is still the placeholder {host}", remedy)
            elif "@" in host or "/" in host or re.fullmatch(r"[^:]*:[0-9]*", host):
                self._bad("AMQP_HOST", "holds more than a host", f"{remedy}; user and port have variables of their own")
            elif not re.fullmatch(r"[A-Za-z0-9._:%-]+", host):
                self._bad("AMQP_HOST", f"has {host!r}, which is not a host name", remedy)
        return hosts

    def password(self) -> str:
        password, remedy = self._secret("AMQP_PASS", CREDENTIAL)
        if not password:
            self._bad("AMQP_PASS", "is not set", remedy)
        return password

    def ledger(self) -> database.Database | None:
        url, variable = self._env.get("DISPATCH_LEDGER", ""), "DISPATCH_LEDGER_PASSWORD"
        password, remedy = self._secret(variable, LEDGER_CREDENTIAL)
        ca = self._env.get("DISPATCH_LEDGER_CA") or self._credential("DISPATCH_LEDGER_CA")
        if not url:
            for name, value in ((variable, password), ("DISPATCH_LEDGER_CA", ca)):
                if value:
                    self._bad(name, "is set but DISPATCH_LEDGER is not", "set both, or neither")
            return None
        try:
            found = database.parse(url)
        except database.AddressError as error:
            self._bad("DISPATCH_LEDGER", error.wrong, error.remedy)
            return None
        if ca and not Path(ca).is_file():
            self._bad("DISPATCH_LEDGER_CA", f"is {ca}, which is not a file that can be read", "correct the path")
        elif ca and found.sslmode == "disable":
            self._bad("DISPATCH_LEDGER_CA", "is set, and DISPATCH_LEDGER has sslmode=disable", "remove one of them")
        if not password and not found.sockets:
            self._bad(variable, "is not set but DISPATCH_LEDGER is", remedy)
        return replace(found, password=password, ca=ca)

    def _credential(self, variable: str) -> str | None:
        """Return the path of the credential of this name in lower case, if there is one."""
        credential = Path(self._env.get("CREDENTIALS_DIRECTORY") or "/nowhere", variable.lower())
        return str(credential) if credential.is_file() else None

    def _secret(self, variable: str, credential: str) -> tuple[str, str]:
        """Return the value of a variable or else of a credential, "" for neither, and how either is given."""
        secret = self._env.get(variable, "")
        directory = self._env.get("CREDENTIALS_DIRECTORY")
        remedy = f"set it, or give systemd the credential {credential} (LoadCredential=)"
        if directory and not secret:
            try:
                secret = Path(directory, credential).read_text(encoding="utf-8").removesuffix("\n")
            except (OSError, UnicodeDecodeError) as error:
                remedy += f"; {credential} can't be read: {type(error).__name__}"
        return secret, remedy

    def tls(self) -> Tls | None:
        switch = self._env.get("AMQP_TLS", "").lower()
        if switch not in _ON + _OFF:
            self._bad("AMQP_TLS", f"is {switch!r}", "set true or false")
        ca, cert, key = (self._tls_file(name, switch) for name in ("AMQP_TLS_CA", "AMQP_TLS_CERT", "AMQP_TLS_KEY"))
        if key and not cert:
            self._bad("AMQP_TLS_CERT", "is not set but AMQP_TLS_KEY is", "set both")
        return Tls(ca, cert, key, self._env.get("AMQP_TLS_SERVER_NAME") or None) if switch in _ON else None

    def _tls_file(self, variable: str, switch: str) -> str | None:
        """Return the path in `variable`, or else, with TLS on, that of the credential of this name in lower case."""
        path = self._env.get(variable) or None
        if path and switch in _OFF:
            self._bad(variable, "is set but AMQP_TLS is not", "set AMQP_TLS=true, or remove it")
        elif path and not Path(path).is_file():
            self._bad(variable, f"is {path}, which is not a file that can be read", "correct the path")
        elif not path and switch in _ON:
            path = self._credential(variable)
        return path

    def http(self) -> tuple[str, int]:
        value = self._env.get("DISPATCH_HTTP") or HTTP
        if found := _address(value):
            return found
        self._bad(
            "DISPATCH_HTTP", f"is {value!r}", f"set address:port, as in {HTTP}; an IPv6 address stands in brackets"
        )
        return "", 0

    def metrics(self) -> Place | None:
        value, variable = self._env.get("DISPATCH_METRICS", ""), "DISPATCH_METRICS"
        remedy = "set an address of this host, an interface as in %eth0, or a socket as in unix:/run/dispatch/http.sock"
        if not value:
            return None
        if value.startswith("unix:"):
            path = value.removeprefix("unix:")
            # sun_path has room for 108 octets with the one that ends it (unix(7)).
            if re.fullmatch(r"/[!-~]+", path) and len(path) < 108:
                return Path(path)
        elif found := re.fullmatch(r"%([!-$&-.0-9;-~]{1,15})(?::([0-9]{1,5}))?", value):
            port = int(found[2] or HTTP_PORT)
            if 1 <= port <= 65535:
                return Interface(found[1], port)
        elif address := _address(value) or _address(f"{value}:{HTTP_PORT}"):
            if not _is_wildcard(address[0]):
                return address
            self._bad(variable, f"is {value!r}, which is every address of this host", remedy)
            return None
        self._bad(variable, f"is {value!r}", remedy)
        return None

    def hook(self) -> str | None:
        value = self._env.get("DISPATCH_HOOK") or None
        if value and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            self._bad("DISPATCH_HOOK", f"is {value!r}", "set module:function")
        return value

    def webhook(self) -> Webhook | None:
        url, variable = self._env.get("DISPATCH_WEBHOOK_URL", ""), "DISPATCH_WEBHOOK_SECRET"
        seconds = self.number("DISPATCH_WEBHOOK_SECONDS", 10, 1, 300)
        secret, remedy = self._secret(variable, WEBHOOK_CREDENTIAL)
        if not url:
            if secret:
                self._bad(variable, "is set but DISPATCH_WEBHOOK_URL is not", "set both, or neither")
            return None
        if fault := _url_fault(url):
            self._bad("DISPATCH_WEBHOOK_URL", fault, "set a URL such as https://orders.example.com/dispatched")
        if self._env.get("DISPATCH_HOOK"):
            self._bad("DISPATCH_WEBHOOK_URL", "is set, and DISPATCH_HOOK is, too", "unset one: an order has one effect")
        if not secret:
            self._bad(variable, "is not set but DISPATCH_WEBHOOK_URL is", remedy)
            return None
        key = _key(secret)
        if not key:
            self._bad(
                variable,
                "is not whsec_ and 24 to 64 octets in base64",
                'make one: echo "whsec_$(openssl rand -base64 32)"',
            )
        return Webhook(url, key, seconds)

    def otlp(self) -> Otlp | None:
        url = self._env.get("DISPATCH_OTLP_ENDPOINT", "").rstrip("/")
        ratio, headers = self._ratio("DISPATCH_OTLP_RATIO"), self._headers("DISPATCH_OTLP_HEADERS")
        if not url:
            for name, given in (("DISPATCH_OTLP_RATIO", self._env.get("DISPATCH_OTLP_RATIO")),
                                ("DISPATCH_OTLP_HEADERS", headers)):  # fmt: skip
                if given:
                    self._bad(name, "is set but DISPATCH_OTLP_ENDPOINT is not", "set both, or neither")
            return None
        remedy = "set the collector's URL for OTLP over HTTP, such as http://collector.example.com:4318"
        if fault := _url_fault(url) or ("has a query, which OTLP has no use for" if "?" in url else ""):
            self._bad("DISPATCH_OTLP_ENDPOINT", fault, remedy)
        elif url.endswith(OTLP_PATH):
            self._bad("DISPATCH_OTLP_ENDPOINT", f"ends in {OTLP_PATH}, which is appended to it", "leave that out")
        return Otlp(url, headers, ratio)

    def _ratio(self, variable: str) -> float:
        value = self._env.get(variable) or "1"
        if re.fullmatch(r"[0-9]+([.][0-9]*)?(e-?[0-9]+)?", value) and 0 <= float(value) <= 1:
            return float(value)
        self._bad(variable, f"is {value!r}", "set a number from 0 to 1, such as 0.01 for one order in a hundred")
        return 1.0

    def _headers(self, variable: str) -> dict[str, str]:
        """Return HTTP headers, written as OpenTelemetry's OTEL_EXPORTER_OTLP_HEADERS is; no problem quotes them."""
        given, _ = self._secret(variable, OTLP_CREDENTIAL)
        headers = {}
        for pair in filter(str.strip, given.split(",")):
            name, _, value = (part.strip() for part in pair.partition("="))
            headers[name] = unquote(value)
            # A token and a field value of RFC 9110, 5.6.2 and 5.5.
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not re.fullmatch("[ -~]+", headers[name]):
                self._bad(variable, "is no list of headers", "set name=value, several with commas in between; a comma "
                          "within a value is written as %2C, a per cent sign as %25")  # fmt: skip
                break
        return headers


def _address(value: str) -> tuple[str, int] | None:
    """Return the host, an IPv6 address in brackets, and the port of address:port; None where it is no such thing."""
    host, _, port = value.rpartition(":")
    name = r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*"
    if not re.fullmatch(rf"{name}|\[[0-9A-Fa-f:.]+\]", host) or not re.fullmatch(r"[0-9]{1,5}", port):
        return None
    return (host, int(port)) if 1 <= int(port) <= 65535 else None


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:  # a name
        return False


def _url_fault(url: str) -> str:
    """Return what keeps a URL from being posted to; "" if nothing does. What may be a secret is not quoted."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        return "has characters that no URL may have"
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError as error:
        return f"is no URL ({error})"
    if parts.scheme not in ("http", "https") or not name or port == 0:
        return "is no http or https URL"
    if parts.username is not None or parts.fragment:
        return "holds a user, a password or a fragment, which are not sent"
    return ""


def _key(secret: str) -> bytes:
    """Return the key of a webhook's secret, as Standard Webhooks writes it; nothing for what is no such secret."""
    prefix, _, encoded = secret.partition("_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return key if prefix == "whsec" and 24 <= len(key) <= 64 else b""
