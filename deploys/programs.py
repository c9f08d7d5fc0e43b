"""The programs that the roles' modules run on a host, for an engine that has no modules to send."""

from __future__ import annotations

import functools
import json
import re
import shlex
from pathlib import Path

from deploys.desired import ROOT

CARRIER = (Path(__file__).parent / "carrier.py").read_text(encoding="utf-8")
COMMAND = ["python3", "-I", "-S", "-c", CARRIER]
_IMPORT = re.compile(r"^from ansible\.module_utils(?:\.(\w+) import|\s+import ([\w, ]+)$)", re.MULTILINE)


class Unseen(str):
    """Text that prints as nothing, because with -v pyinfra logs a fact's arguments, and these may hold secrets."""

    __slots__ = ()

    def __str__(self) -> str:
        return "…"

    __repr__ = __str__

    def __format__(self, _: str) -> str:
        return str(self)


def command() -> str:
    """The command line that runs any of the programs; `stdin` says which."""
    return shlex.join(COMMAND)


def stdin(program: str, request: object) -> Unseen:
    """Standard input for `command`: `program`, a module in some role's ``module_utils``, and the request for it."""
    return Unseen(json.dumps({"modules": modules(program), "request": request}) + "\n")


@functools.cache
def modules(program: str) -> list[tuple[str, str]]:
    """The names and texts of a program's modules; the program itself comes last."""
    (path,) = {file.resolve() for file in ROOT.glob(f"roles/*/module_utils/{program}.py")}
    text = path.read_text(encoding="utf-8")
    needed: dict[str, str] = {}
    for one, several in _IMPORT.findall(text):
        for name in [one] if one else several.replace(" ", "").split(","):
            needed.update(modules(name))
    return [*needed.items(), (program, text)]
