"""How a role's plugins and YAML become a collection's."""

from __future__ import annotations

import pytest

from tests.publishing.python_source import SourceError, filters, qualified
from tests.publishing.yaml_source import Names

SHARED = "ansible_collections.a.b.plugins.module_utils"
PACKAGES = {"disk": SHARED, "host": SHARED, "faults": "ansible_collections.a.b.plugins.plugin_utils"}
NAMES = Names("a.b", frozenset({"state", "switch"}), frozenset({"account", "state"}), frozenset({"kind", "kind_of"}))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from ansible.module_utils.disk import sync\n", f"from {SHARED}.disk import sync\n"),
        ("from ansible.module_utils import disk, host\n", f"from {SHARED} import disk, host\n"),
        ("from ansible.module_utils.disk import (\n    sync,\n)\n", f"from {SHARED}.disk import (\n    sync,\n)\n"),
        ("from disk import sync  # only now it can be found\n", f"from {SHARED}.disk import sync\n"),
        ("import disk\n", f"from {SHARED} import disk\n"),
        ("import disk as d\n", f"from {SHARED} import disk as d\n"),
    ],
)
def test_an_import_names_the_collection(before: str, after: str) -> None:
    assert qualified(before, "release", PACKAGES) == after


@pytest.mark.parametrize(
    "line",
    ["from ansible.module_utils.basic import AnsibleModule\n", "import os\n", "from .disk import sync\n", "disk = 1\n"],
)
def test_another_import_stays(line: str) -> None:
    assert qualified(line, "release", PACKAGES) == line


def test_an_import_of_ours_and_ansible_s_own_at_once_is_refused() -> None:
    with pytest.raises(SourceError, match="line 2"):
        qualified("import os\nfrom ansible.module_utils import basic, disk\n", "release", PACKAGES)


@pytest.mark.parametrize("statement", ["sys.path.append(here)", "sys.path += [\n    here,\n]"])
def test_no_plugin_adds_to_python_s_path(statement: str) -> None:
    text = f"import sys\n\n# Ansible loads this file by its path.\n# It finds no other.\n{statement}\n\nKIND = 1\n"
    assert qualified(text, "release", PACKAGES) == "import sys\n\n\nKIND = 1\n"


@pytest.mark.parametrize(("above", "path"), [(1, ' / "roles" / "release"'), (2, ' / "roles"'), (3, "")])
def test_a_path_from_a_plugin_leads_where_it_led(above: int, path: str) -> None:
    old, new = (f"ROOT = Path(__file__).resolve().parents[{n}]" for n in (above, 2))
    assert qualified(old, "release", PACKAGES) == new + path


def test_the_filters_of_a_plugin_are_told() -> None:
    text = "OTHER = {'no': 1}\nclass FilterModule:\n    def filters(self):\n        return {'kind': kind, 'of': of}\n"
    assert filters(text) == {"kind", "of"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("- name: x\n  state:\n    a: 1\n", "- name: x\n  a.b.state:\n    a: 1\n"),
        ("- block:\n    - switch: {}\n", "- block:\n    - a.b.switch: {}\n"),
        (
            "- ansible.builtin.import_role:\n    name: account\n",
            "- ansible.builtin.import_role:\n    name: a.b.account\n",
        ),
        ("- hosts: all\n  roles:\n    - account\n", "- hosts: all\n  roles:\n    - a.b.account\n"),
        ('x: "{{ y | kind }}"\n', 'x: "{{ y | a.b.kind }}"\n'),
        ('x: "{{ y | kind_of | kind }}"\n', 'x: "{{ y | a.b.kind_of | a.b.kind }}"\n'),
        ("x: \"{{ y | map('kind') }}\"\n", "x: \"{{ y | map('a.b.kind') }}\"\n"),
        ("x: >-\n  {{ y |\n  kind }}\n", "x: >-\n  {{ y |\n  a.b.kind }}\n"),
    ],
)
def test_a_name_is_written_in_full(before: str, after: str) -> None:
    assert NAMES.qualified(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "- name: x\n  vars:\n    state: 1\n",  # a variable of a module's name
        "- ansible.builtin.file:\n    state: absent\n",  # an option of a module's name
        "x: |\n  kind words\n",  # a block, whose mark is no pipe
        "# y | kind\nx: 1\n",
        'x: "{{ kind }}"\n',
        "- ansible.builtin.set_fact:\n    name: account\n",
    ],
)
def test_what_only_looks_like_a_name_stays(text: str) -> None:
    assert NAMES.qualified(text) == text


def test_a_template_names_filters_in_full() -> None:
    assert NAMES.in_template("state = {{ kind | kind }}\n") == "state = {{ kind | a.b.kind }}\n"


def test_what_an_alias_repeats_is_named_once() -> None:
    text = 'a: &a "{{ x | kind }}"\nb: *a\n'
    assert NAMES.qualified(text) == text.replace("| kind", "| a.b.kind")
