"""The modules are documented as they are."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import app_arguments

MODULES = sorted(Path(__file__).resolve().parents[3].glob("roles/*/library/*.py"))
each = pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)


@cache
def documentation() -> dict[str, dict[str, Any]]:
    """What ansible-doc makes of each module: `doc`, `examples` and `return`."""
    program = Path(sys.executable).with_name("ansible-doc")
    directories = os.pathsep.join(sorted({str(module.parent) for module in MODULES}))
    command = [str(program), "--type", "module", "--module-path", directories, "--json"]
    told = subprocess.run([*command, *(module.stem for module in MODULES)], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")
    found: dict[str, dict[str, Any]] = json.loads(told.stdout)
    return found


def argument_spec(module: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that a module declares."""

    class Declared(Exception):  # noqa: N818 - no error: it ends the module there
        pass

    def declare(spec: dict[str, Any], **_: object) -> None:
        raise Declared(spec)

    found = importlib.util.spec_from_file_location(module.stem, module)
    assert found is not None
    assert found.loader is not None
    loaded = importlib.util.module_from_spec(found)
    found.loader.exec_module(loaded)
    monkeypatch.setattr(loaded, "AnsibleModule", declare)
    with pytest.raises(Declared) as declared:
        loaded.main()
    spec: dict[str, Any] = declared.value.args[0]
    return spec


def said(options: dict[str, Any]) -> dict[str, Any]:
    """Of options, as documentation and an argument spec both give them, what the two have to agree in."""
    return {
        name: (option["type"], option.get("required", False), option.get("default")) for name, option in options.items()
    }


@each
def test_a_module_is_documented(module: Path) -> None:
    found = documentation()[module.stem]
    assert found["doc"]["module"] == module.stem
    assert found["doc"]["short_description"]
    assert module.stem in found["examples"]
    assert all(value["returned"] for value in (found["return"] or {}).values())


@each
def test_a_module_takes_what_its_documentation_says(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(documentation()[module.stem]["doc"]["options"]) == said(argument_spec(module, monkeypatch))


def test_the_document_of_what_is_wanted_is_documented() -> None:
    options = documentation()["app_state"]["doc"]["options"]["wanted"]["suboptions"]
    assert said(options) == said(app_arguments.WANTED["options"])


def test_secrets_are_kept_out_of_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = {path.stem: argument_spec(path, monkeypatch) for path in MODULES}
    for name in ("app_state", "app_switch"):
        assert specs[name]["wanted"]["options"]["credentials"]["no_log"]
    assert specs["app_release"]["index_url"]["no_log"]
    assert specs["rabbitmq_configuration"]["key"]["no_log"]
    assert specs["postgresql_configuration"]["key"]["no_log"]
    assert specs["rabbitmq_objects"]["users"]["options"]["password"]["no_log"]
