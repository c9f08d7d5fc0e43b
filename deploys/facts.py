"""What pyinfra reads of a host: everything the deploy asks about, in one round trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pyinfra.api import FactBase, QuoteString, StringCommand

PROGRAM = Path(__file__).resolve().parents[1] / "roles" / "app_service" / "files" / "inspection.py"


class Inspection(FactBase[dict[str, Any]]):
    """The answer of `roles/app_service/files/inspection.py` to a question given as ``_stdin``."""

    def command(self) -> StringCommand:
        return StringCommand("python3", "-I", "-S", "-c", QuoteString(PROGRAM.read_text()))

    def process(self, output: list[str]) -> dict[str, Any]:
        return dict(json.loads("\n".join(output)))
