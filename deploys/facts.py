"""What pyinfra asks a host, in one round trip a question, such as how it differs from what is wanted."""

from __future__ import annotations

import json
import re
from typing import Any

from pyinfra.api import FactBase, FactProcessError, QuoteString, StringCommand

from deploys.programs import COMMAND

_ANSWER = re.compile(r'\{"(changes|failure|kind)": .*\}$')


class Answer(FactBase[dict[str, Any]]):
    """What one of the roles' programs answers; the question travels in ``_stdin`` (see `programs.stdin`)."""

    def command(self) -> StringCommand:
        *words, program = COMMAND
        return StringCommand(*words, QuoteString(program))

    def process(self, output: list[str]) -> dict[str, Any]:
        # A login's .bashrc that prints has its own say first, even on the line of the answer.
        for line in reversed(output):
            if answer := _ANSWER.search(line):
                return dict(json.loads(answer[0]))
        raise FactProcessError(f"no answer among what the host printed: {output!r}")
