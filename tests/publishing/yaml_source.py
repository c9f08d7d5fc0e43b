"""Gives the modules, roles and filters in YAML and in templates their names in a collection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import yaml

_ROLE_KEYS = ("ansible.builtin.import_role", "ansible.builtin.include_role")


@dataclass(frozen=True)
class Names:
    """What a collection brings, by its short names, and the collection's own name."""

    collection: str
    modules: frozenset[str]
    roles: frozenset[str]
    filters: frozenset[str]

    def qualified(self, text: str) -> str:
        """Return YAML with these names written in full; all else in it, comments too, stays as it is."""
        return _edited(text, self._edits(text))

    def in_template(self, text: str) -> str:
        """Return a template with the filters' names written in full."""
        return _edited(text, self._filters(text, 0, len(text)))

    def _edits(self, text: str) -> Iterator[tuple[int, int, str]]:
        seen: set[int] = set()  # what an alias names has been edited at its anchor
        pending = [(node, False) for node in yaml.compose_all(text, yaml.SafeLoader)]
        while pending:
            node, in_list = pending.pop()
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, yaml.ScalarNode):
                start, end = node.start_mark.index, node.end_mark.index
                # A block's own mark is no pipe of Jinja's.
                yield from self._filters(text, text.index("\n", start, end) if node.style in ("|", ">") else start, end)
            elif isinstance(node, yaml.SequenceNode):
                pending += [(each, True) for each in node.value]
            elif isinstance(node, yaml.MappingNode):
                pending += [(value, False) for _, value in node.value]
                if in_list:  # tasks and plays are mappings in lists, and variables of the same names are none
                    yield from self._actions(node)

    def _actions(self, node: yaml.MappingNode) -> Iterator[tuple[int, int, str]]:
        for key, value in node.value:
            if key.value in self.modules:
                yield self._edit(key)
            elif key.value in _ROLE_KEYS:
                yield from (self._edit(name) for option, name in value.value if option.value == "name")
            elif key.value == "roles":
                yield from (self._edit(name) for name in value.value if name.value in self.roles)

    def _edit(self, name: yaml.ScalarNode) -> tuple[int, int, str]:
        return name.start_mark.index, name.end_mark.index, f"{self.collection}.{name.value}"

    def _filters(self, text: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
        names = "|".join(sorted(self.filters, key=len, reverse=True))
        used = re.compile(rf"(?:\|\s*|\b(?:map|select|reject)\(\s*['\"])({names})\b")
        for found in used.finditer(text, start, end):
            yield found.start(1), found.end(1), f"{self.collection}.{found[1]}"


def _edited(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text
