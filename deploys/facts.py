"""What pyinfra asks a host, in one round trip: how it differs from what is wanted."""

from __future__ import annotations

import json
from typing import Any

from pyinfra.api import FactBase, QuoteString, StringCommand

from deploys.programs import COMMAND


class State(FactBase[dict[str, Any]]):
    """The answer of the role app_service's comparison; the question travels in ``_stdin`` (see `programs.stdin`)."""

    def command(self) -> StringCommand:
        *words, program = COMMAND
        return StringCommand(*words, QuoteString(program))

    def process(self, output: list[str]) -> dict[str, Any]:
        return dict(json.loads("\n".join(output)))
