"""Commands that the doctor runs on the host."""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

# Root's own environment may hold secrets, and a process's user can read its environment in /proc.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_MOST = 4 << 20  # octets that are read of what a command prints


class Done(NamedTuple):
    """How a command ended: its exit code (None: it did not start or took too long) and what it printed."""

    code: int | None
    output: str

    @property
    def last_line(self) -> str:
        return self.output.strip().rpartition("\n")[2].strip()


def run(
    *command: str, user: pwd.struct_passwd | None = None, cwd: Path | None = None, text: bytes = b"", seconds: float = 4
) -> Done:
    """Run a command, as another user if one is given, with `text` on its standard input; never raises for what it does.

    It may be a program that means harm: it gets at most `seconds`, whatever it leaves behind, and `_MOST` octets.
    """
    become: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    deadline = time.monotonic() + seconds
    try:
        process = subprocess.Popen(  # noqa: S603 - the commands are the doctor's own, and no shell reads them
            command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=ENVIRONMENT, start_new_session=True, **become,
        )  # fmt: skip
    except OSError as error:
        return Done(None, str(error))
    stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    with stdout:
        try:
            with contextlib.suppress(BrokenPipeError), stdin:
                stdin.write(text)
            output = _read(stdout, deadline)
            stdout.close()  # a command that prints on ends of it
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            return Done(None, f"{command[0]} does not end within {seconds:g} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Done(code, output.decode("utf-8", "replace"))


def _read(stream: IO[bytes], deadline: float) -> bytes:
    """Read to the end or to `_MOST` octets. Raises TimeoutError."""
    found = b""
    while len(found) < _MOST:
        if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        part = os.read(stream.fileno(), 1 << 16)
        if not part:
            break
        found += part
    return found
