"""The service side of systemd's notification protocol (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

LONGEST = 500  # characters of an assignment; systemd ignores a datagram of more than 4096 octets


class Notifier:
    """Sends state to the service manager, if one started this process."""

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        """Read NOTIFY_SOCKET and WATCHDOG_USEC."""
        address = env.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero octet with which an abstract address begins (unix(7)).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = env.get("WATCHDOG_USEC", "")
        meant = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog = int(usec) / 1e6 if usec.isdigit() and meant else 0.0  # seconds, or 0 without a watchdog

    def send(self, *assignments: str) -> bool:
        """Send `NAME=value` assignments; return False where the manager is too busy now, and never wait for it.

        It is no error if the manager can't be reached.

        What is not printable in them becomes a space: in a text of the broker's, a line break would begin
        another assignment.
        """
        if not self._address:
            return True
        lines = ["".join(c if c.isprintable() else " " for c in each[:LONGEST]) for each in assignments]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True
