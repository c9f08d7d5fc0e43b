"""Runs one of the roles' programs on a host: ``python3 -I -S -c <this text>``, by its own Python.

Standard input is JSON: ``modules``, a list of names and texts in which each module comes after those it imports, and
``request``, the argument for the `main` of the last one. The exit code is what that `main` returns.
"""

import json
import sys
import types


def module(name: str) -> types.ModuleType:
    """An empty module that programs can import."""
    made = sys.modules[name] = types.ModuleType(name)
    return made


asked = json.load(sys.stdin)
module("ansible")
package = module("ansible.module_utils")
for name, text in asked["modules"]:
    program = module(f"ansible.module_utils.{name}")
    setattr(package, name, program)
    exec(compile(text, name, "exec"), program.__dict__)  # noqa: S102 - the roles' own programs, brought by root
sys.exit(program.main(asked["request"]))
