"""What pyinfra reads of a host: everything the deploy asks about, in one round trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pyinfra.api import FactBase, QuoteString, StringCommand

PROGRAM = Path(__file__).resolve().parents[1] / "roles" / "app_service" / "files" / "inspection.py"


class Unseen(str):
    """Text that shows nothing of itself where it is printed: with -v, pyinfra logs what a fact is given."""

    __slots__ = ()

    def __str__(self) -> str:
        return "…"

    __repr__ = __str__

    def __format__(self, _: str) -> str:
        return str(self)


class Inspection(FactBase[dict[str, Any]]):
    """The answer of `roles/app_service/files/inspection.py` to the question in ``_stdin``, which ends in a newline."""

    def command(self) -> StringCommand:
        return StringCommand("python3", "-I", "-S", "-c", QuoteString(PROGRAM.read_text()))

    def process(self, output: list[str]) -> dict[str, Any]:
        return dict(json.loads("\n".join(output)))
