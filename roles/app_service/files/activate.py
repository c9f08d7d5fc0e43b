"""Switches a host to a release and its settings, proves that it works, or puts everything back.

Runs on the host, as root: ``python3 -c <this text> --name dispatch …``. Standard input, as JSON, gives the files to
make live, secrets among them, each with its `mode` and its `content`: ``environment``, ``unit``, ``command`` and
``credentials/<name>``. It is one program and not a list of tasks so that it ends on its own, one way or the other, when
the controller goes away in the middle.

Exit codes: 0 the new state runs; 3 the check failed and nothing live was touched; 4 the new state did not become
healthy, or its check failed after an activation that was cut short, and the old one was put back; 75 another activation
is under way (sysexits.h, EX_TEMPFAIL).
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

CHECK_FAILED, RESTORED, BUSY = 3, 4, 75
# Seconds a service has to stay ready, without a restart, to count as healthy: one that crashes soon after is not.
SETTLE_SECONDS = 3.0
POLL_SECONDS = 0.2
# Seconds a check that takes too long has to end once it is told to.
CHECK_STOP_SECONDS = 5
JOURNAL_LINES = "15"
BOOTED = Path("/run/systemd/system")  # sd_booted(3)
LOCKS = Path("/run")


class SwitchError(Exception):
    """The switch did not work; the message says how that was seen."""


@dataclass(frozen=True)
class Service:
    """What is switched, by the names `roles/app_service/vars/main.yml` gives."""

    name: str
    user: str
    home: Path
    ready_url: str
    budget: float
    stop_seconds: float

    @property
    def configuration(self) -> Path:
        return Path("/etc", self.name)

    @property
    def live(self) -> dict[str, Path]:
        """Where each staged file belongs."""
        return {
            "environment": self.configuration / "environment",
            "credentials": self.configuration / "credentials",
            "unit": Path("/etc/systemd/system", f"{self.name}.service"),
            "command": Path("/usr/bin", self.name),
        }

    @property
    def current(self) -> Path:
        return self.home / "current"

    @property
    def backup(self) -> Path:
        """The last state that was healthy, while a switch is under way."""
        return self.configuration / "previous"

    @property
    def spare(self) -> Path:
        """A directory to put that back from, made beforehand: it takes room on a disk that may be full by then."""
        return self.configuration / "next.spare"


def main() -> int:
    arguments = parse()
    service = Service(
        arguments.name,
        arguments.user,
        arguments.home,
        arguments.ready_url,
        arguments.budget,
        arguments.stop_seconds,
    )
    contents = json.load(sys.stdin)
    # The connection may go away; what was begun is still brought to an end.
    detach()
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    with (LOCKS / f"{service.name}-activate.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another play is switching {service.name} on this host; wait for it to end, then run this one again")
            return BUSY
        if os.path.lexists(service.current) and not service.current.is_symlink():
            what = "directory" if service.current.is_dir() else "file"
            say(f"{service.current} is a {what}, and is to be a symbolic link; move it away, then run the play again")
            return CHECK_FAILED
        try:
            staged = stage(service, contents)
        except OSError as error:
            return give_up(service, "the new settings could not be written", str(error))
        try:
            return activate(service, arguments.release, staged, arguments.check, arguments.keep)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def detach() -> None:
    """Leave the session: where the connection goes away, sudo(8) ends all that is in it."""
    if os.getpgrp() == os.getpid():  # may not leave, see setsid(2); a child may
        child = os.fork()
        if child:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    os.setsid()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="activate", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--name", required=True, help="name of the service")
    parser.add_argument("--user", required=True, help="the user it runs as")
    parser.add_argument("--home", required=True, type=Path, help="the directory that holds current")
    parser.add_argument("--release", required=True, type=Path, help="the release to switch to")
    parser.add_argument("--check", default="", help="command of the release that must pass first, relative to it")
    parser.add_argument("--ready-url", default="", help="http URL that answers 200 once the service is ready")
    parser.add_argument("--budget", type=float, default=60, help="seconds the service may take to be ready")
    parser.add_argument("--stop-seconds", type=float, default=30, help="seconds systemd gives it to end")
    parser.add_argument("--keep", type=int, default=3, help="releases to keep, the live one included")
    return parser.parse_args()


def stage(service: Service, contents: dict[str, dict[str, str]]) -> Path:
    """Write the new files into a directory of their own, which root alone can enter; return its path."""
    service.configuration.mkdir(exist_ok=True)
    service.configuration.chmod(0o755)
    staged = Path(tempfile.mkdtemp(prefix="next.", dir=service.configuration))
    try:
        (staged / "credentials").mkdir(mode=0o700)
        for name, file in contents.items():
            path = staged / name
            path.write_text(file["content"])
            path.chmod(int(file["mode"], 8))
    except OSError:
        shutil.rmtree(staged)
        raise
    return staged


def activate(service: Service, release: Path, staged: Path, check: str, keep: int) -> int:
    if not BOOTED.is_dir():
        # An image is being made: nothing runs that could be asked, or has to be kept running.
        before = linked(service.current)
        place(service, staged, release)
        run("systemctl", "enable", service.name)
        mark(release, before)
        forget(service)
        prune(service, keep)
        return 0
    failure = failed_check(service, release, staged, check) if check else ""
    if failure:
        return give_up(service, f"`{check}` failed on this host with the new settings", failure)
    try:
        save(service)
    except OSError as error:
        return give_up(service, "the live state could not be kept aside", str(error))
    try:
        place(service, staged, release)
        restart(service)
        mark(release, linked(service.backup / "current"))
    except Exception as error:  # whatever it is, what was live is to be live again
        journal = last_lines(service)
        outcome = put_back(service)
        say(f"the new release or settings are not healthy: {error}\n{outcome}\nThe journal of the attempt:\n{journal}")
        return RESTORED
    forget(service)
    prune(service, keep)
    return 0


def give_up(service: Service, what: str, why: str) -> int:
    """Leave what is live, unless an activation that was cut short has left it unproven; return the exit code."""
    if not service.backup.exists():
        say(f"{what}; nothing that is live has changed:\n{why}")
        return CHECK_FAILED
    say(f"{what}:\n{why}\nThe activation before this one was cut short, so what was live before it is put back. "
        f"{put_back(service)}")  # fmt: skip
    return RESTORED


def linked(link: Path) -> Path | None:
    return link.readlink() if link.is_symlink() else None


def mark(release: Path, before: Path | None) -> None:
    """Tell those who ask later that the release has been live, and since when, unless it was so before."""
    marker = release / ".activated"
    if before != release or not marker.exists():
        marker.touch()


def failed_check(service: Service, release: Path, staged: Path, check: str) -> str:
    """Run the release's own check as the service would run; return what it said if it failed."""
    command = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--service-type=exec"]
    command += [f"--property=User={service.user}", f"--property=WorkingDirectory={release}"]
    command += [f"--property=EnvironmentFile={staged / 'environment'}"]
    for credential in sorted((staged / "credentials").iterdir()):
        command += [f"--property=LoadCredential={credential.name}:{credential}"]
    # Nobody else changes this host meanwhile: a check that hangs must not keep it so.
    command += [f"--property=RuntimeMaxSec={service.budget}", f"--property=TimeoutStopSec={CHECK_STOP_SECONDS}"]
    program, *rest = check.split()
    command += ["--", str(release / program), *rest]
    begun = time.monotonic()
    try:
        limit = service.budget + 2 * CHECK_STOP_SECONDS
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=limit)
    except subprocess.TimeoutExpired:
        return f"it did not end within {service.budget:.0f} s"
    if done.returncode == 0:
        return ""
    said = (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"
    late = time.monotonic() - begun >= service.budget
    return f"it did not end within {service.budget:.0f} s, and was stopped: {said}" if late else said


def save(service: Service) -> None:
    """Keep the live state, unless an activation that was cut short has already kept the one before it."""
    (service.spare / "credentials").mkdir(mode=0o700, parents=True, exist_ok=True)
    if service.backup.exists():
        return
    half = service.backup.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    try:
        half.mkdir(mode=0o700)
        for name, path in service.live.items():
            if path.is_dir():
                shutil.copytree(path, half / name)
            elif path.exists():
                shutil.copy2(path, half / name)
        release = linked(service.current)
        if release:
            (half / "current").symlink_to(release)
        half.rename(service.backup)
    except OSError:
        for path in (half, service.spare):
            shutil.rmtree(path, ignore_errors=True)
        raise


def place(service: Service, source: Path, release: Path | None) -> None:
    """Make what stands in `source` and `release` live, or no release; each file is replaced in one step."""
    for name, path in service.live.items():
        if name == "credentials" or not (source / name).exists():
            remove(path)
        if (source / name).exists():
            move(source / name, path)
    if release:
        link = service.current.with_suffix(".new")
        link.unlink(missing_ok=True)
        link.symlink_to(release)
        link.replace(service.current)
    else:
        remove(service.current)
    shutil.rmtree(source)
    restorecon = shutil.which("restorecon")
    if restorecon:  # for SELinux, a file that is moved keeps the type of where it came from; without SELinux, no effect
        subprocess.run([restorecon, "-R", *(path for path in service.live.values() if path.exists())], check=False)


def move(source: Path, target: Path) -> None:
    """Put a file, or a directory where there is none, in the place of another, in one step."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # /usr may be a file system of its own.
        copy = target.with_name(f".{target.name}.new")
        shutil.copy2(source, copy)
        copy.replace(target)


def put_back(service: Service) -> str:
    """Restore the saved state; return how that went, in a sentence."""
    try:
        return restore(service)
    except Exception as fault:  # the reason for going back is still to be told
        return f"What was live could not be put back ({fault}), and is kept in {service.backup}; mend that, run again."


def restore(service: Service) -> str:
    """Put the saved state back and prove it; return how that went, in a sentence. Raises SwitchError and OSError."""
    release = linked(service.backup / "current")
    had_unit = (service.backup / "unit").exists()
    if not had_unit:
        run("systemctl", "disable", "--now", service.name)
    # Linked, not moved: what is saved stays whole if this is cut short, and takes no room on a disk that may be full.
    for path in service.spare.rglob("*"):
        if not path.is_dir():
            path.unlink()
    ignored = shutil.ignore_patterns("current")
    shutil.copytree(service.backup, service.spare, ignore=ignored, copy_function=os.link, dirs_exist_ok=True)
    place(service, service.spare, release)
    forget(service)
    if not had_unit:
        run("systemctl", "daemon-reload")
        return "There was nothing before it to go back to; the service is removed again."
    # What was set up by hand is proven by systemd alone: it need not answer at the URL.
    service, what = (service, f"Release {release.name}") if release else (replace(service, ready_url=""), "The unit")
    try:
        restart(service)
    except SwitchError as error:
        return f"{what} and its settings are back, but they are not healthy, either: {error}"
    return f"{what} and its settings are back, and healthy."


def forget(service: Service) -> None:
    """Drop the saved state, and what activations that were cut short had staged."""
    shutil.rmtree(service.backup, ignore_errors=True)
    for path in service.configuration.glob("next.*"):
        shutil.rmtree(path)


def restart(service: Service) -> None:
    """Restart the service and wait until it has been ready for SETTLE_SECONDS. Raises SwitchError."""
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", service.name)
    before = properties(service)["InvocationID"]
    run("systemctl", "restart", "--no-block", service.name)
    deadline = time.monotonic() + service.stop_seconds + service.budget
    ready_since: float | None = None
    restarts: int | None = None  # those of a state before, which was crashing, may still be counted
    while ready_since is None or time.monotonic() < ready_since + SETTLE_SECONDS:
        time.sleep(POLL_SECONDS)
        state = properties(service)
        # Until the old process has ended, all that systemd says is of that one.
        started = state["InvocationID"] != before
        if started and restarts is None:
            restarts = int(state["NRestarts"])
            deadline = time.monotonic() + service.budget
        again = restarts is not None and int(state["NRestarts"]) > restarts
        if started and (again or state["SubState"] in ("failed", "auto-restart")):
            raise SwitchError(f"it ended by itself ({state['Result']}, exit status {state['ExecMainStatus']})")
        reason = not_ready(service, state) if started else "the process before it has not ended"
        if not reason:
            ready_since = ready_since or time.monotonic()
            continue
        ready_since = None
        if time.monotonic() > deadline:
            raise SwitchError(f"it was not ready within {service.budget:.0f} s: {reason}")


def properties(service: Service) -> dict[str, str]:
    names = "ActiveState,SubState,NRestarts,Result,ExecMainStatus,StatusText,InvocationID"
    shown = run("systemctl", "show", service.name, f"--property={names}")
    return dict(line.split("=", 1) for line in shown.splitlines())


def not_ready(service: Service, state: dict[str, str]) -> str:
    """Say why the service isn't ready, or nothing where it is."""
    if state["ActiveState"] != "active":
        return f"systemd says {state['ActiveState']} ({state['SubState']}) {state['StatusText']}".strip()
    if not service.ready_url:
        return ""
    url = urlsplit(service.ready_url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=2)
    try:
        connection.request("GET", url.path)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace").strip()
        return "" if answer.status == 200 else f"{service.ready_url} answers {answer.status}: {text}"
    except (OSError, http.client.HTTPException) as error:
        return f"{service.ready_url} does not answer: {error or type(error).__name__}"
    finally:
        connection.close()


def last_lines(service: Service) -> str:
    """The end of the journal of the process that has just failed: its own lines, and systemd's of it."""
    try:
        invocation = properties(service)["InvocationID"]
        run("journalctl", "--sync")
        own, systemd_s = f"_SYSTEMD_INVOCATION_ID={invocation}", f"INVOCATION_ID={invocation}"
        return run("journalctl", own, "+", systemd_s, "--lines", JOURNAL_LINES, "--output=cat", "--no-pager")
    except Exception as error:  # no reason not to put back what was
        return str(error)


def prune(service: Service, keep: int) -> None:
    """Remove releases but for the live one and those that were live last. One without .complete is being built."""
    # What a build that is under way has put aside is not a release.
    complete = [path.parent.resolve() for path in (service.home / "releases").glob("*/.complete")]
    live = service.current.resolve()
    others = [path for path in complete if path != live and path.suffix != ".damaged"]
    others.sort(key=last_live, reverse=True)
    for path in others[keep - 1 :]:
        shutil.rmtree(path)


def last_live(release: Path) -> float:
    """When the release was last made live, in seconds since the epoch; 0 where it never was."""
    marker = release / ".activated"
    return marker.stat().st_mtime if marker.exists() else 0.0


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise SwitchError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def say(text: str) -> None:
    with suppress(OSError):  # nobody may be listening any more
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
