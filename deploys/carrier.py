"""Runs one of the roles' programs on a host: ``python3 -I -S -c <this text>``, by its own Python.

Standard input, as JSON, brings the ``modules`` the program is made of, in the order in which they need each other, each
with its name and its text, and the ``request`` that the last one's `main` gets. Its exit code is the program's.
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
