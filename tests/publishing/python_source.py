"""Makes a plugin of a collection out of a role's own: it imports what it needs by the collection's name."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

_HERE = re.compile(r"Path\(__file__\)\.resolve\(\)\.parents\[([123])\]")


class SourceError(Exception):
    """A source can't be made part of a collection; the text says what stands in the way, and in which line."""


def filters(text: str) -> set[str]:
    """The names of the filters that a plugin's FilterModule hands to Ansible."""
    return {
        key.value
        for kind in ast.parse(text).body
        if isinstance(kind, ast.ClassDef) and kind.name == "FilterModule"
        for node in ast.walk(kind)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


def qualified(text: str, role: str, packages: Mapping[str, str]) -> str:
    """Return the source of a plugin of `role` as it stands in the collection.

    `packages` has, by the name of each module that plugins share, the package of the collection that holds it. Raises
    SourceError for an import that is partly of them and partly of Ansible's own.
    """
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            _import_from(node, lines, packages)
        elif isinstance(node, ast.Import) and any(alias.name in packages for alias in node.names):
            (alias,) = node.names
            line = f"from {packages[alias.name]} import {alias.name}\n"
            lines[node.lineno - 1] = line if not alias.asname else line.replace("\n", f" as {alias.asname}\n")
        elif _extends_the_path(node):
            _leave_out(node, lines)
    return _HERE.sub(lambda found: _path(int(found[1]), role), "".join(lines))


def _import_from(node: ast.ImportFrom, lines: list[str], packages: Mapping[str, str]) -> None:
    module, index = str(node.module), node.lineno - 1
    if module == "ansible.module_utils":
        ours = {packages[alias.name] for alias in node.names if alias.name in packages}
        if ours and (len(ours) > 1 or not all(alias.name in packages for alias in node.names)):
            raise SourceError(f"line {node.lineno} imports modules of several packages; import them one by one")
        new = next(iter(ours), module)
    else:
        name = module.removeprefix("ansible.module_utils.")
        new = f"{packages[name]}.{name}" if name in packages else module
    if new != module:
        # Its comment says why it could not stand at the top, where it can stand now.
        line = re.sub(r"  # (noqa: E402 - |only now ).*", "", lines[index])
        lines[index] = line.replace(f"from {module} ", f"from {new} ", 1)


def _extends_the_path(node: ast.AST) -> bool:
    """Whether this is ``sys.path.append(…)`` or ``sys.path += …``, by which a role's plugin finds its own."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ast.unparse(node.value.func) == "sys.path.append"
    return isinstance(node, ast.AugAssign) and ast.unparse(node.target) == "sys.path"


def _leave_out(node: ast.AST, lines: list[str]) -> None:
    """Empty the lines of a statement, and those of the comment above it, which is about it."""
    assert isinstance(node, ast.stmt)
    first, last = node.lineno - 1, node.end_lineno or node.lineno
    while first and lines[first - 1].startswith("#"):
        first -= 1
    lines[first:last] = [""] * (last - first)


def _path(above: int, role: str) -> str:
    """Where the directory is now that stood so many directories above the plugin: the role, the roles, all of it."""
    top = "Path(__file__).resolve().parents[2]"
    return {1: f'{top} / "roles" / "{role}"', 2: f'{top} / "roles"', 3: top}[above]
