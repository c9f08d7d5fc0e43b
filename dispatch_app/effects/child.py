"""The process in which a shop's hook runs: `python -m dispatch_app.effects.child DESCRIPTOR MODULE:FUNCTION`.

It speaks over the socket with that descriptor: a JSON document behind its length in octets, in four octets. It tells
what came of the import, and then, for each order it is given, what came of the call: null, or the exception's type and
text. Standard output and standard error are the service's standard error, so a hook may print.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..orders import Order

LENGTH = struct.Struct(">I")


def pack(value: object) -> bytes:
    """Return one document to send. Raises ValueError or RecursionError for a value that JSON can't express."""
    octets = json.dumps(value).encode()
    return LENGTH.pack(len(octets)) + octets


def receive(read: Callable[[int], bytes]) -> Any:
    """Return the next document; `read` returns at most as many octets as it is told, none at the end.

    Raises EOFError there, and whatever `read` raises.
    """
    return json.loads(_exactly(read, LENGTH.unpack(_exactly(read, LENGTH.size))[0]))


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    octets = bytearray()
    while len(octets) < count:
        part = read(count - len(octets))
        if not part:
            raise EOFError
        octets += part
    return bytes(octets)


def _outcome(call: Callable[[], object]) -> tuple[str, str] | None:
    """Return the type and the text of what a call raises, if anything; a hook may raise whatever there is."""
    try:
        call()
    except BaseException as error:
        try:
            text = str(error)
        except Exception as second:
            text = f"(its text can't be made: {type(second).__name__})"
        return type(error).__name__, text
    return None


def _end_with_parent(sock: socket.socket) -> None:
    """End this process when the other end of the socket is closed, even amid a call: then nobody waits for it."""
    poll = select.poll()
    poll.register(sock, 0)  # for a hang-up alone
    poll.poll()
    os._exit(0)


def main(descriptor: str, name: str) -> None:
    """Import the hook, then call it with each order."""
    sock = socket.socket(fileno=int(descriptor))
    sock.set_inheritable(False)
    os.environ.pop("PYTHONPATH", None)  # it was for this process, and might harm programs that the hook runs
    for number in (signal.SIGTERM, signal.SIGINT):
        # systemd sends them to every process of the service, and the order in hand is still to be finished. Unlike a
        # signal that is ignored, one with a handler is as usual again in programs that the hook runs.
        signal.signal(number, lambda *_: None)
    with contextlib.suppress(OSError):  # of this process and the service's, the kernel ends this one for memory
        Path("/proc/self/oom_score_adj").write_text("500")
    threading.Thread(target=_end_with_parent, args=(sock,), daemon=True).start()
    module, _, function = name.partition(":")
    hooks: list[Callable[[Order], object]] = []

    def load() -> None:
        hooks.append(getattr(importlib.import_module(module), function))

    sock.sendall(pack(_outcome(load)))
    while True:
        order = Order(*receive(sock.recv))
        sock.sendall(pack(_outcome(partial(hooks[0], order))))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # so that a line is out before a crash
    main(*sys.argv[1:])
