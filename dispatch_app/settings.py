"""Settings from the environment, all checked before anything is done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

CREDENTIAL = "amqp_password"  # file name in $CREDENTIALS_DIRECTORY (systemd.exec(5), LoadCredential=)


class SettingsError(Exception):
    """One or more bad settings; each of `problems` names its variable and what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Tls:
    """How to trust the broker, and how to prove who this is."""

    ca: str | None
    cert: str | None
    key: str | None
    server_name: str | None


@dataclass(frozen=True)
class Settings:
    """What every subcommand needs to know; the password never shows in its repr."""

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
    prefetch: int
    hook: str | None
    retention_days: int

    def url(self, host: str) -> str:
        """Return the connection as an AMQP URI without the password."""
        scheme = "amqps" if self.tls else "amqp"
        shown = f"[{host}]" if ":" in host else host
        return f"{scheme}://{quote(self.user)}@{shown}:{self.port}/{quote(self.vhost, safe='')}"


def load(env: Mapping[str, str]) -> Settings:
    """Read the settings of everything that talks to the broker. Raises SettingsError."""
    return _Reader(env).settings()


def ledger_path(env: Mapping[str, str]) -> Path:
    """Return the ledger's file in $STATE_DIRECTORY. Raises SettingsError."""
    # systemd.exec(5): several StateDirectory= entries arrive separated by colons.
    directory = Path(env.get("STATE_DIRECTORY", "").split(":")[0])
    if not directory.is_absolute() or not directory.is_dir():
        raise SettingsError([
            "STATE_DIRECTORY is not an existing absolute directory; under systemd StateDirectory= "
            "sets it, by hand: STATE_DIRECTORY=/var/lib/dispatch"
        ])  # fmt: skip
    return directory / "ledger.db"


class _Reader:
    """Collects problems instead of stopping at the first."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._problems: list[str] = []

    def settings(self) -> Settings:
        tls = self._tls()
        port = 5671 if tls else 5672
        settings = Settings(
            hosts=self._hosts(),
            port=self._number("AMQP_PORT", port, 1, 65535),
            user=self._name("AMQP_USER", "roboshop"),
            password=self._password(),
            vhost=self._name("AMQP_VHOST", "/"),
            exchange=self._name("AMQP_EXCHANGE", "robot-shop"),
            queue=self._name("AMQP_QUEUE", "orders", longest=200),  # room for ".retry.300s"
            routing_key=self._name("AMQP_ROUTING_KEY", "orders"),
            tls=tls,
            http=self._http(),
            prefetch=self._number("DISPATCH_PREFETCH", 2000, 1, 65535),
            hook=self._hook(),
            retention_days=self._number("DISPATCH_RETENTION_DAYS", 0, 0, 36500),
        )
        if self._problems:
            raise SettingsError(self._problems)
        return settings

    def _bad(self, name: str, wrong: str, remedy: str) -> None:
        self._problems.append(f"{name} {wrong}; {remedy}")

    def _name(self, variable: str, default: str, longest: int = 255) -> str:
        value = self._env.get(variable) or default
        if len(value.encode()) > longest or not value.isprintable():
            self._bad(variable, f"is not 1 to {longest} printable octets", "shorten it")
        return value

    def _number(self, variable: str, default: int, low: int, high: int) -> int:
        value = self._env.get(variable) or str(default)
        if re.fullmatch(r"[0-9]{1,9}", value) and low <= int(value) <= high:
            return int(value)
        self._bad(variable, f"is {value!r}", f"set a whole number from {low} to {high}")
        return default

    def _hosts(self) -> tuple[str, ...]:
        value = self._env.get("AMQP_HOST", "")
        hosts = tuple(host.strip() for host in value.split(","))
        remedy = "set RabbitMQ's host name or IP address, several separated by commas"
        for host in hosts:
            if not host:
                self._bad("AMQP_HOST", "is empty or has an empty entry", remedy)
            elif "<" in host or ">" in host:
                self._bad("AMQP_HOST", f"is still the placeholder {host}", remedy)
            elif "/" in host or re.fullmatch(r"[^:]*:[0-9]*", host):
                self._bad("AMQP_HOST", f"has {host!r}, more than a host", "the port goes in AMQP_PORT")
            elif not re.fullmatch(r"[A-Za-z0-9._:%-]+", host):
                self._bad("AMQP_HOST", f"has {host!r}, which is no host name", remedy)
        return hosts

    def _password(self) -> str:
        directory = self._env.get("CREDENTIALS_DIRECTORY")
        if self._env.get("AMQP_PASS"):
            return self._env["AMQP_PASS"]
        if not directory:
            self._bad("AMQP_PASS", "is not set", f"set it, or give systemd the credential {CREDENTIAL}")
            return ""
        file = Path(directory, CREDENTIAL)
        try:
            password = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._bad("AMQP_PASS", f"is not set and {file} can't be read ({type(error).__name__})",
                      f"give systemd the credential {CREDENTIAL}")  # fmt: skip
            return ""
        password = password[:-1] if password.endswith("\n") else password
        if not password:
            self._bad("AMQP_PASS", f"is not set and {file} is empty", "put the password in it")
        return password

    def _tls(self) -> Tls | None:
        names = ("AMQP_TLS_CA", "AMQP_TLS_CERT", "AMQP_TLS_KEY", "AMQP_TLS_SERVER_NAME")
        ca, cert, key, server_name = (self._env.get(name) or None for name in names)
        switch = self._env.get("AMQP_TLS", "").lower()
        if switch not in ("", "0", "1", "false", "true", "no", "yes", "off", "on"):
            self._bad("AMQP_TLS", f"is {switch!r}", "set true or false")
        enabled = switch in ("1", "true", "yes", "on")
        for name, file in zip(names[:3], (ca, cert, key)):
            if file and not Path(file).is_file():
                self._bad(name, f"names {file}, which is no readable file", "correct the path")
            if file and not enabled:
                self._bad(name, "is set but AMQP_TLS is not", "set AMQP_TLS=true or remove it")
        if key and not cert:
            self._bad("AMQP_TLS_KEY", "is set without AMQP_TLS_CERT", "set both or neither")
        return Tls(ca, cert, key, server_name) if enabled else None

    def _http(self) -> tuple[str, int]:
        value = self._env.get("DISPATCH_HTTP") or "127.0.0.1:9672"
        host, _, port = value.rpartition(":")
        if host and re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65535:
            return host.strip("[]"), int(port)
        self._bad("DISPATCH_HTTP", f"is {value!r}", "set address:port, as in 127.0.0.1:9672")
        return "", 0

    def _hook(self) -> str | None:
        value = self._env.get("DISPATCH_HOOK") or None
        if value and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            self._bad("DISPATCH_HOOK", f"is {value!r}", "set module:function")
        return value
