"""The programs that the roles' modules run on a host, for an engine that has no modules to send."""

from __future__ import annotations

import base64
import functools
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from deploys.desired import ROOT
from deploys.hidden import Unseen

CARRIER = (Path(__file__).parent / "carrier.py").read_text(encoding="utf-8")
COMMAND = ["python3", "-I", "-S", "-c", CARRIER]
_IMPORT = re.compile(r"^from ansible\.module_utils(?:\.(\w+) import|\s+import ([\w, ]+)$)", re.MULTILINE)


def command() -> str:
    """The command line that runs any of the programs; `stdin` says which."""
    return shlex.join(COMMAND)


def stdin(program: str, request: object, files: Mapping[str, Path] | None = None) -> Unseen:
    """Standard input for `command`: `program`, a module in some role's ``module_utils``, and the request for it.

    `files` of the controller are written on the host first, by their paths there. They travel this way, because SFTP
    fails where a login's .bashrc prints.
    """
    contents = {path: base64.b64encode(file.read_bytes()).decode() for path, file in (files or {}).items()}
    return Unseen(json.dumps({"modules": modules(program), "request": request, "files": contents}) + "\n")


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
