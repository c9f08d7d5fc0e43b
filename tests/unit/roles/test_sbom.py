"""What a release is made of is read from its SBOM, whatever that is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.module_utils.app_sbom import NAME, made_of

SBOM = {
    "metadata": {"component": {"version": "1.0.0", "properties": [{"name": "commit", "value": "ab"}]}},
    "components": [
        {"name": "pika", "version": "1.4.4"},
        {"name": "shop"},
        {"name": "pip", "version": "26.3", "scope": "excluded"},
    ],
}
NOTHING = {"version": "", "commit": "", "components": {}}


def test_a_release_is_made_of_what_its_sbom_says(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(json.dumps(SBOM))
    assert made_of(tmp_path) == {"version": "1.0.0", "commit": "ab", "components": {"pika": "1.4.4", "shop": ""}}


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", '{"metadata": {"component": []}}', '{"metadata": 1}', "\xff"]
)
def test_a_release_without_one_that_can_be_read_says_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / NAME).write_bytes(text.encode("latin-1"))
    assert made_of(tmp_path) == NOTHING
