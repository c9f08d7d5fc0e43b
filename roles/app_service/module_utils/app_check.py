"""Runs a release's own check before a switch, with all that the start would have.

The check is a service of its own, made of the staged unit and of every drop-in of the real one. So it gets the same
state directory, credentials, sandbox and limits, and what systemd would refuse at the start it refuses here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible.module_utils import app_host
from ansible.module_utils.app_proof import Service, journal_of

UNITS = Path("/run/systemd/system")
# The directories of units that an administrator or a package writes, by rank (systemd.unit(5)).
UNIT_PATH = ("/etc/systemd/system.control", "/run/systemd/system.control", "/etc/systemd/system", "/run/systemd/system",
             "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")  # fmt: skip
STATES = Path("/var/lib")
# What runs a check that comes in a zip of its own, and the oldest version of it that can.
PYTHON, OLDEST_PYTHON = "/usr/bin/python3", (3, 9)
NAMESPACES = Path("/proc/sys/user/max_user_namespaces")
# A check that takes too long is told to end, and killed after this many seconds more.
STOP_SECONDS = 5
# The name sorts after every other drop-in, so that these lines are the last word.
LAST = "zzzzzz-check.conf"
# What the check prints stands beside them, where SELinux lets systemd write; its zip does, too, where it has one.
OUTPUT, ZIP = "said", "check.zip"
# Nothing of the start but its process counts: no other program runs, nothing restarts it, and its end ends nothing.
DIRECTIVES = """\
[Unit]
FailureAction=none
SuccessAction=none

[Service]
Type=oneshot
RemainAfterExit=no
Restart=no
RestartForceExitStatus=
WatchdogSec=0
RuntimeDirectoryPreserve=yes
ExecCondition=
ExecStartPre=
ExecStart=
ExecStart={command}
ExecStartPost=
ExecStop=
ExecStopPost=
TimeoutStartSec={budget}
TimeoutStopSec={stop}
StandardOutput=file:{output}
StandardError=inherit
"""
# systemd.exec(5), "Process Exit Codes": with codes from 200, systemd says that it could not start the program.
OF_SYSTEMD = range(200, 256)
USER, NAMESPACE, STATE_DIRECTORY = "217", "226", "238"


def no_python(service: Service) -> str:
    """Why this host can't run a check that comes in a zip of its own, or ""."""
    if not service.check_zip:
        return ""
    told = [PYTHON, "-I", "-c", f"import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"]
    try:
        if subprocess.run(told, capture_output=True).returncode == 0:
            return ""
    except OSError:  # there is none at all
        pass
    version = ".".join(map(str, OLDEST_PYTHON))
    return (
        f"The settings of {service.name} have not been checked before the switch: this release has no check of its "
        f"own, and {PYTHON} of this host is not Python {version} or later, which could run another one."
    )


def failed_check(service: Service, release: Path, staged: Path, check: str) -> str:
    """Run the release's own check as the service would run; return why it failed, or ""."""
    state = STATES / service.name
    had_state = os.path.lexists(state)
    try:
        with _unit(service, release, staged, check) as name:
            if not _is_seen(name):
                app_host.run("systemctl", "daemon-reload")
            failure = _run(service, name)
    except (app_host.CommandError, OSError) as error:
        failure = str(error)
    if failure and not had_state:
        with suppress(OSError):  # it holds something by now, or was not made
            state.rmdir()
    return failure


@contextmanager
def _unit(service: Service, release: Path, staged: Path, check: str) -> Iterator[str]:
    """Write the check's unit and its drop-ins; yield its name, and remove them afterwards."""
    name = f"{service.name}-switch-check.service"
    unit, drop_ins = UNITS / name, UNITS / f"{name}.d"
    own = service.live["drop_in"].name
    shutil.rmtree(drop_ins, ignore_errors=True)
    try:
        drop_ins.mkdir()
        drop_ins.chmod(0o755)
        for file, path in _drop_ins(service).items():
            if file != own:
                (drop_ins / file).symlink_to(path)
        command = f"{release}/{check}"
        if service.check_zip:
            shutil.copyfile(service.check_zip, drop_ins / ZIP)
            (drop_ins / ZIP).chmod(0o644)
            command = f"{PYTHON} -B {drop_ins / ZIP} {check}"
        last = DIRECTIVES.format(command=command, budget=service.budget, stop=STOP_SECONDS, output=drop_ins / OUTPUT)
        texts = {unit: staged / "unit", drop_ins / own: staged / "drop_in"}
        written = {path: source.read_text(encoding="utf-8") for path, source in texts.items()}
        for path, text in {**written, drop_ins / LAST: last}.items():
            path.write_text(_moved(text, service, release, staged), encoding="utf-8")
            path.chmod(0o644)  # systemd warns of a unit that not everybody can read
        yield name
    finally:
        unit.unlink(missing_ok=True)
        shutil.rmtree(drop_ins, ignore_errors=True)
        # systemd keeps a failed unit until it is told not to.
        subprocess.run(["systemctl", "reset-failed", name], capture_output=True, check=False)


def _moved(text: str, service: Service, release: Path, staged: Path) -> str:
    """A unit's text with the staged files and the new release in place of what is live."""
    places = {
        service.live["credentials"]: staged / "credentials",
        service.live["environment"]: staged / "environment",
        service.current: release,
    }
    for live, new in places.items():
        text = text.replace(str(live), str(new))
    return text


def _drop_ins(service: Service) -> dict[str, Path]:
    """The drop-ins of the real unit alone, by name; systemd itself finds those for services at large."""
    found: dict[str, Path] = {}
    for directory in UNIT_PATH:
        for path in Path(directory, f"{service.name}.service.d").glob("*.conf"):
            found.setdefault(path.name, path)
    return found


def _is_seen(name: str) -> bool:
    """Whether systemd finds the check's unit as it was just written; versions before 247 do so after a reload only."""
    state = app_host.unit(name, "NeedDaemonReload", "DropInPaths")
    seen = str(UNITS / f"{name}.d" / LAST) in state.get("DropInPaths", "").split()
    return seen and state.get("NeedDaemonReload") == "no"


def _run(service: Service, name: str) -> str:
    """Start the check and wait for its end; return why it failed, or ""."""
    try:
        limit = service.budget + 2 * STOP_SECONDS
        done = subprocess.run(
            ["systemctl", "start", name], capture_output=True, text=True, errors="replace", timeout=limit
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {service.budget:.0f} s"
    if done.returncode == 0:
        return ""
    state = app_host.unit(name, "Result", "ExecMainStatus", "InvocationID", "DropInPaths")
    status = state.get("ExecMainStatus", "")
    said = app_host.text(UNITS / f"{name}.d" / OUTPUT).strip()
    if not said and status.isdigit() and int(status) in OF_SYSTEMD:
        said = journal_of(state.get("InvocationID", "")).strip()
    said = said or (f"exit code {status}" if status not in ("", "0") else done.stderr.strip())
    if state.get("Result") == "timeout":
        return f"it did not end within {service.budget:.0f} s, and was stopped: {said}"
    return "\n".join([said, *_causes(service, status, state.get("DropInPaths", "").split())])


def _causes(service: Service, status: str, drop_ins: list[str]) -> Iterator[str]:
    """What on this host is known to keep the service from its state directory, its sandbox or its credentials."""
    state = STATES / service.name
    if status == STATE_DIRECTORY and state.is_symlink():
        target = state.resolve()
        yield (
            f"{state} is a symbolic link, which systemd does not take for the directory of a service's state. Mount "
            f"the directory it leads to in its place (systemctl stop {service.name}; rm {state} && mkdir {state} && "
            f"echo {shlex.quote(f'{target} {state} none bind 0 0')} >> /etc/fstab && mount {state}), then run the "
            "play again"
        )
    if status in (USER, NAMESPACE) and app_host.text(NAMESPACES).strip() == "0":
        yield (
            "This host has switched user namespaces off, which PrivateUsers= of the sandbox needs. Switch them on "
            f"(sysctl user.max_user_namespaces=10000, and the same in /etc/sysctl.d), or set "
            f"""{service.name}_unit_overrides to {{PrivateUsers: "no"}}, then run the play again"""
        )
    own = service.live["drop_in"].name
    emptied = re.compile(r"^\s*LoadCredential\s*=\s*$", re.MULTILINE)
    for path in map(Path, drop_ins):
        if path.name > own and emptied.search(app_host.text(path)):
            yield (
                f"{path.resolve()} takes all credentials from the service, by an empty LoadCredential=; remove that "
                "line, then run the play again"
            )
