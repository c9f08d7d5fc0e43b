"""RabbitMQ's and Erlang's packages on a host: what is installed, and what would be. For Python 3.9 and later."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.rabbitmq_host import Run
from ansible.module_utils.rabbitmq_versions import erlang_fault, matches, number, path_fault, series, upstream
from ansible.module_utils.server_files import RefusedError

SERVER = "rabbitmq-server"
PREFERENCES = Path("/etc/apt/preferences.d")
PINS = "roboshop-rabbitmq.pref"
_PATIENCE = 300  # seconds for another apt to end
# apt_preferences(5): above all other sources' versions, and never a way back.
_PRIORITY = 995


class Apt:
    """The packages of Debian and Ubuntu, where Erlang is many, all of one source."""

    def __init__(self, run: Run) -> None:
        self._run = run
        listed = run(
            ["dpkg-query", "--show", "--showformat=${db:Status-Status}\t${source:Package}\t${Package}\t${Version}\n"]
        )
        rows = [line.split("\t") for line in listed[1].splitlines()]
        installed = [row[1:] for row in rows if len(row) == 4 and row[0] == "installed"]
        self.installed = {name: version for source, name, version in installed if name == SERVER or source == "erlang"}

    @property
    def erlang(self) -> str:
        """The version of Erlang that is installed, "" for none."""
        return str(self.installed.get("erlang-base", ""))

    def refresh(self) -> None:
        """Fetch the package index anew. Raises RefusedError."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            code, output, error = self._run(["apt-get", "--quiet", "update"])
            if not code:
                return
            if "Could not get lock" not in error or time.monotonic() > deadline:
                raise RefusedError(f"apt-get update failed: {error.strip() or output.strip()}")
            time.sleep(2)

    def available(self, erlang: bool) -> list[str]:
        """The versions that the package sources have, the newest first."""
        _, output, _ = self._run(["apt-cache", "madison", "erlang-base" if erlang else SERVER])
        return list(dict.fromkeys(line.split("|")[1].strip() for line in output.splitlines() if line.count("|") > 1))

    def pins(self, version: str, erlang: str) -> str:
        """Text of the preferences that hold apt to these versions, whoever runs it; "" for no versions."""
        held = {SERVER: version, "src:erlang": erlang}
        return "\n".join(
            f"Package: {name}\nPin: version {one}\nPin-Priority: {_PRIORITY}\n" for name, one in held.items() if one
        )

    def older(self, one: str, other: str) -> bool:
        """Whether one version of a package comes before another."""
        return bool(self._run(["dpkg", "--compare-versions", one, "lt", other])[0] == 0)

    def due(self, version: str, erlang: str) -> list[str]:
        """What to install, as apt takes it, to have these versions; "" for any."""
        found = []
        if SERVER not in self.installed or (version and self.installed[SERVER] != version):
            found.append(f"{SERVER}={version}" if version else SERVER)
        if erlang:
            found += [f"{name}={erlang}" for name, has in self.installed.items() if name != SERVER and has != erlang]
        return found

    def outcome(self, due: list[str], pins: str) -> tuple[str, str]:
        """Return RabbitMQ's and Erlang's versions after `due` is installed. Raises RefusedError where it can't be."""
        with tempfile.TemporaryDirectory() as directory:
            for file in PREFERENCES.glob("*"):
                if file.is_file() and file.name != PINS:
                    shutil.copy(file, directory)
            Path(directory, PINS).write_text(pins)
            Path(directory).chmod(0o755)
            command = [
                "apt-get",
                "--simulate",
                "--assume-yes",
                "-o",
                f"Dir::Etc::PreferencesParts={directory}",
                "install",
                *due,
            ]
            code, output, error = self._run(command)
        if code:
            raise RefusedError(
                f"apt can't install {' '.join(due)}; nothing has changed. It says:\n{(error or output).strip()}"
            )
        if gone := re.findall(r"^Remv (\S+)", output, re.MULTILINE):
            raise RefusedError(
                f"With {' '.join(due)}, apt would remove {', '.join(gone)}; nothing has changed. Set rabbitmq_version "
                "and rabbitmq_erlang_version to versions that go together."
            )
        after = {**self.installed, **dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", output, re.MULTILINE))}
        return after.get(SERVER, ""), after.get("erlang-base", "")


class Dnf:
    """The packages of the RHEL family, by RabbitMQ's own repositories, where Erlang is one."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.installed = {}
        for name in (SERVER, "erlang"):
            code, output, _ = run(["rpm", "--query", "--queryformat", "%{VERSION}-%{RELEASE}\n", name])
            if not code:
                self.installed[name] = output.split()[-1]

    @property
    def erlang(self) -> str:
        """The version of Erlang that is installed, "" for none."""
        return str(self.installed.get("erlang", ""))

    def refresh(self) -> None:
        """dnf fetches its index when it is old."""

    def available(self, erlang: bool) -> list[str]:
        """The versions that the repositories have, the newest first; none before the repositories are there."""
        command = ["dnf", "--quiet", "repoquery", "--available", "--queryformat", "%{version}-%{release}\n"]
        _, output, _ = self._run([*command, "erlang" if erlang else SERVER])
        return sorted(set(output.split()), key=number, reverse=True)

    def pins(self, _version: str, _erlang: str) -> str:
        """dnf itself has no such file."""
        return ""

    def older(self, one: str, other: str) -> bool:
        """Whether one version of a package comes before another; of releases of one version, dnf is the judge."""
        return bool(number(one) < number(other))

    def due(self, version: str, erlang: str) -> list[str]:
        """What to install, as dnf takes it, to have these versions; "" for any."""
        wanted = {"erlang": erlang, SERVER: version}
        return [
            f"{name}-{one}" if one else name
            for name, one in wanted.items()
            if (one or name == SERVER) and (name not in self.installed or (one and self.installed[name] != one))
        ]

    def outcome(self, due: list[str], _pins: str) -> tuple[str, str]:
        """Return RabbitMQ's and Erlang's versions after `due` is installed, as far as that can be told."""

        def after(name: str, erlang: bool) -> str:
            named = [spec[len(name) + 1 :] for spec in due if spec.startswith(f"{name}-")]
            return next(iter([*named, *filter(None, [self.installed.get(name)]), *self.available(erlang)]), "")

        return after(SERVER, False), after("erlang", True)


MANAGERS: dict[str, Callable[[Run], Any]] = {"apt": Apt, "dnf": Dnf}


def plan(packages: Any, version: str, erlang: str, refresh: bool) -> dict[str, Any]:
    """Return what is to be installed to have the wanted versions, "" for any, and what there is then.

    Raises RefusedError where the package sources lack one, it can't be reached from what is installed, or RabbitMQ
    would not run on its Erlang.
    """
    has = packages.installed.get(SERVER, "")
    wanted = _resolved(packages, version, has, False)
    wanted_erlang = _resolved(packages, erlang, packages.erlang, True)
    if wanted is None or wanted_erlang is None:
        if refresh:
            packages.refresh()
            return plan(packages, version, erlang, False)
        missing, erlangs = ("rabbitmq_version", False) if wanted is None else ("rabbitmq_erlang_version", True)
        there = packages.available(erlangs)
        raise RefusedError(
            f"{missing} is {erlang if erlangs else version}, which this host's package sources do not have. They have "
            f"{', '.join(there) or 'none'}. Set it to one of those, or give the host a source that has it; nothing has "
            "changed."
        )
    due = packages.due(wanted, wanted_erlang)
    if due and refresh:
        packages.refresh()
        return plan(packages, version, erlang, False)
    pins = packages.pins(wanted, wanted_erlang)
    _refuse_older(packages, "rabbitmq_version", wanted, has)
    _refuse_older(packages, "rabbitmq_erlang_version", wanted_erlang, packages.erlang)
    if has and version and (fault := path_fault(has, wanted)):
        raise RefusedError(fault)
    after, erlang_after = packages.outcome(due, pins) if due else (has, packages.erlang)
    if due and after and (version or erlang) and (fault := erlang_fault(after, erlang_after)):
        raise RefusedError(fault)
    return {
        "installed": has,
        "version": upstream(after),
        "series": ".".join(map(str, series(after))) if after else "",
        "due": due,
        "pins": pins,
        "upgrade": bool(has and due),
    }


def crosses(found: dict[str, Any]) -> bool:
    """Whether what `plan` found is an upgrade to another series, which needs all feature flags of the one before."""
    return bool(found["upgrade"]) and series(found["installed"]) != series(found["version"])


def _resolved(packages: Any, wanted: str, installed: str, erlang: bool) -> str | None:
    """Return the package's version that is wanted in full, "" for any, None where there is none."""
    if not wanted or matches(installed, wanted):
        return installed if wanted else ""
    there = packages.available(erlang)
    # Before the role has added them, there are no repositories on the RHEL family, and dnf is the one to refuse.
    if not there and isinstance(packages, Dnf) and not packages.installed:
        return wanted
    return next((one for one in there if matches(one, wanted)), None)


def _refuse_older(packages: Any, variable: str, wanted: str, installed: str) -> None:
    if wanted and installed and packages.older(wanted, installed):
        raise RefusedError(
            f"{variable} is {wanted}, older than the {installed} that is installed, and RabbitMQ supports no way back. "
            f"Set it to {installed} or a later one; nothing has changed."
        )
