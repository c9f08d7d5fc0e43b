"""Runs one of the roles' programs on a host: ``python3 -I -S -c <this text>``, by its own Python.

Standard input is JSON: ``modules``, a list of names and texts in which each module comes after those it imports;
``request``, the argument for the `main` of the last one; and ``files``, base64 of what to write for it, by path. The
exit code is what that `main` returns.
"""

import base64
import json
import os
import sys
import types


def module(name: str) -> types.ModuleType:
    """An empty module that programs can import."""
    made = sys.modules[name] = types.ModuleType(name)
    return made


asked = json.load(sys.stdin)
for path, content in asked["files"].items():
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(base64.b64decode(content))
module("ansible")
package = module("ansible.module_utils")
for name, text in asked["modules"]:
    program = module(f"ansible.module_utils.{name}")
    setattr(package, name, program)
    exec(compile(text, name, "exec"), program.__dict__)  # noqa: S102 - the roles' own programs, brought by root
sys.exit(program.main(asked["request"]))
