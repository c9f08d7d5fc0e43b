"""Text that shows nothing of itself, because pyinfra prints a host's data and logs the arguments of its facts."""

from __future__ import annotations


class Hidden(str):
    """A secret that prints, and becomes JSON, as ``…``. Only `encode`, by which paramiko sends it, gives it away."""

    _secret: str

    def __new__(cls, secret: str) -> Hidden:
        hidden = super().__new__(cls, "…")
        hidden._secret = str(secret)
        return hidden

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self._secret.encode(encoding, errors)

    def __copy__(self) -> Hidden:
        return self


class Unseen(str):
    """Text that prints as ``…`` and is sent as it is. As JSON it would be shown, so it is for arguments alone."""

    __slots__ = ()

    def __str__(self) -> str:
        return "…"

    __repr__ = __str__

    def __format__(self, _: str) -> str:
        return str(self)
