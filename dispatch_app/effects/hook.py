"""The effect `hook`: a function of the shop's, called in a process of its own, so that it harms no other."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import cast

from ..orders import Order
from ..settings import SECRETS, SettingsError
from ..tracing import CARRIED
from . import child
from .deadline import left
from .port import Breaker, EffectError

START_SECONDS = 30.0  # for the import
BACKOFF = (0.2, 30.0)  # seconds before a process is started again for the second time, and at most
_STDERR = 2  # for the hook's standard output, too
# What the hook has no use for: passwords, and the ways to speak to systemd for the service.
_KEPT_BACK = (*SECRETS.values(), "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Hook:
    """Calls `module:function` with one order after another."""

    name = "hook"
    reasons: tuple[str, ...] = ("hook-failed", "hook-timeout", "hook-died")
    threads = 1  # the function need not expect to be called while it works
    breaker: Breaker | None = None

    def __init__(self, function: str, seconds: float) -> None:
        """Start the process and import the function; a call may take `seconds`. Raises SettingsError."""
        self._function, self._seconds = function, seconds
        self._delay = 0.0  # seconds before the next start
        self._closed = threading.Event()
        self._socket: socket.socket
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._start()
        except EffectError as error:
            raise SettingsError([f"DISPATCH_HOOK {function}: {error}; correct or unset it"]) from error

    def perform(self, order: Order) -> None:
        """Call the function. Raises EffectError."""
        try:
            question = child.pack(order)
        except (ValueError, RecursionError) as error:
            raise EffectError("hook-failed", f"the order can't be handed to the hook: {error}") from error
        if self._process and self._process.poll() is not None:
            self._lose()  # it has died since the order before
        if not self._process:
            self._closed.wait(self._delay)
            self._start()
        said = self._ask(question, self._seconds)
        self._delay = 0.0
        if said:
            raise EffectError("hook-failed", said[1], kind=said[0])

    def close(self) -> None:
        """End the process."""
        self._closed.set()
        self._end()

    def _start(self) -> None:
        """Start the process. Raises EffectError, by which no order is at fault."""
        self._socket, theirs = socket.socketpair()
        environment = {name: value for name, value in os.environ.items() if name not in _KEPT_BACK}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path and path != CARRIED)
        command = [sys.executable, "-m", child.__name__, str(theirs.fileno()), self._function]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                command, stdin=subprocess.DEVNULL, stdout=_STDERR, pass_fds=[theirs.fileno()], env=environment,
                start_new_session=True,
            )  # fmt: skip
        try:
            said = self._ask(b"", START_SECONDS)
        except EffectError as error:
            raise EffectError(error.reason, f"it can't be imported, {error}", away=True) from error
        if said:
            self._lose()
            raise EffectError("hook-died", f"it can't be imported ({said[0]}: {said[1]})", away=True)

    def _ask(self, question: bytes, seconds: float) -> tuple[str, str] | None:
        """Send a question, and return what the function raised. Raises EffectError if there is no answer."""
        until = time.monotonic() + seconds

        def read(count: int) -> bytes:
            self._socket.settimeout(left(until))
            return self._socket.recv(count)

        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(question)
            return cast("tuple[str, str] | None", child.receive(read))
        except TimeoutError:
            self._lose()
            raise EffectError("hook-timeout", f"no answer within {seconds:g} s, so its process was killed") from None
        except (OSError, EOFError, ValueError) as error:
            raise EffectError("hook-died", f"its process {self._lose()}") from error

    def _lose(self) -> str:
        """End the process, which is of no use any more, and return how it ended; the next one starts after a delay."""
        self._delay = min(BACKOFF[1], self._delay * 2 or BACKOFF[0])
        code = self._end()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _end(self) -> int:
        """Kill the process and those it has started; return its exit code."""
        process, self._process = self._process, None
        if process is None:  # another thread has just closed the effect
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        self._socket.close()
        return process.wait()
