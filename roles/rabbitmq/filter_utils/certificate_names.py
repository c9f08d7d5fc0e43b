"""Says what is wrong with the names that a server's certificate is to bear, and with the name of its file."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

# RFC 1123, 2.1, with the underscore that internal names have.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([\w-]{0,61}\w)?(\.[A-Za-z0-9_]([\w-]{0,61}\w)?)*", re.ASCII)
_OCTETS = 255  # that Linux allows a file's name


def is_host(text: object) -> bool:
    """Whether a value is an address or a host's name."""
    try:
        ipaddress.ip_address(str(text))
    except ValueError:
        return isinstance(text, str) and bool(_HOST_NAME.fullmatch(text))
    return True


def file_faults(host: str) -> Iterator[str]:
    """The fault of a host whose name in the inventory no certificate's file can bear. The CA has the name ca."""
    if "/" in host or host.startswith(".") or len(f"{host}.pem".encode()) > _OCTETS or host == "ca":
        yield (
            f"The host is named {host!r} in the inventory, and no certificate's file can bear that name. Name it "
            "without / and without a dot in front, in 251 octets at most, and not ca; on EC2, change its tag Name."
        )


def name_faults(variable: str, name: object, reached: str) -> Iterator[str]:
    """The fault of a name that no certificate can bear; `reached` says who reaches the server by it."""
    if not is_host(name.removeprefix("*.") if isinstance(name, str) else name):
        yield (
            f"{variable} names {name!r}, which is neither a host's name nor an address, and no certificate can bear "
            f"it. Set it to the names and addresses by which {reached}."
        )
