"""An artifact says what it is by the names at the root of its zip."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from ansible.module_utils import app_kind


def kind(*names: str) -> str:
    """What a zip with these names is for the service `dispatch`; a * marks what can be executed."""
    found: str = app_kind.kind([(name.rstrip("*"), name.endswith("*")) for name in names], "dispatch")
    return found


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["requirements.txt", "dispatch_app/", "dispatch_app/__main__.py"], "python"),
        (["requirements.txt", "tools/main.go", "tools/go.mod"], "python"),
        (["requirements.txt", "dispatch*"], "python"),  # a script of the service
        (["main.go"], "go"),
        (["dispatch.go", "README.md", "run.sh*"], "go"),
        (["go.mod", "go.sum", "main.go", "vendor/modules.txt", "vendor/a/main.go"], "go"),
        (["go.mod", "main.go", "cmd/tool/main.go"], "go"),
        (["dispatch*"], "binary"),
        (["dispatch*", "config.yml", "other*", "static/index.html"], "binary"),
        (["dispatch*", "src/main.go", "src/requirements.txt"], "binary"),
    ],
)
def test_an_artifact_is_of_one_kind(names: list[str], found: str) -> None:
    assert kind(*names) == found


@pytest.mark.parametrize(
    ("name", "carried"),
    [("installer/pip-26.3-py3-none-any.whl", True), ("./installer/pip-26.3-py3-none-any.whl", True),
     ("wheels/pip-26.3-py3-none-any.whl", False), ("installer/other.whl", False)],
)  # fmt: skip
def test_an_artifact_tells_whether_it_carries_pip(tmp_path: Path, name: str, carried: bool) -> None:
    with zipfile.ZipFile(tmp_path / "it.zip", "w") as archive:
        archive.writestr("requirements.txt", "")
        archive.writestr(name, "")
    told = app_kind.examine(tmp_path / "it.zip", "dispatch")
    assert (told.kind, told.installer, told.fault) == ("python", carried, "")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "it has nothing at its root"),
        (["app/main.go", "app/go.mod"], "it has app at its root"),
        (["app/requirements.txt"], "it has app at its root"),
        (["payment*"], "it has payment at its root"),
        (["dispatch/", "dispatch/run*"], "it has dispatch at its root"),
        (["dispatch"], "which is there, but its mode says that it can't be executed (chmod +x dispatch), and zip it"),
        (
            [f"{letter}.txt" for letter in "abcdefghij"],
            "d.txt, e.txt, f.txt, g.txt, h.txt, … at its root",
        ),
    ],
)
def test_what_is_of_no_kind_is_told_the_three(names: list[str], said: str) -> None:
    with pytest.raises(app_kind.KindError) as refused:
        kind(*names)
    assert said in str(refused.value)
    for one in ("requirements.txt (Python", "go.mod or *.go files (Go source)", "the executable dispatch (a binary)"):
        assert one in str(refused.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["requirements.txt", "main.go", "go.mod"],
            "has requirements.txt, as Python has it, and go.mod, main.go",
        ),
        (["main.go", "dispatch*"], "has Go source and dispatch at its root, and dispatch is the name of the program"),
        (["main.go", "dispatch/orders.go"], "has Go source and dispatch at its root"),
        (
            ["go.mod", "cmd/api/main.go", "cmd/worker/main.go", "vendor/x/main.go"],
            "main.go in cmd/api, cmd/worker.",
        ),
        (["go.mod", "cmd/api/main.go"], "has a go.mod but no Go source at its root, and main.go in cmd/api"),
        (["go.mod", "main_test.go"], "has a go.mod but no Go source at its root. The program is built from the root"),
    ],
)
def test_what_could_be_two_programs_is_refused(names: list[str], said: str) -> None:
    with pytest.raises(app_kind.KindError) as refused:
        kind(*names)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("go_mod", "version"),
    [
        ("module dispatch\n\ngo 1.19\n", "1.19"),
        ("module dispatch\r\ngo 1.21.3\r\ntoolchain go1.25.0\r\n", "1.21.3"),
        ("// go 1.1\nmodule go\n\tgo   1.20 // or later\nrequire go.example/x v1.2.3\n", "1.20"),
        ("module dispatch\n", ""),
    ],
)
def test_the_version_is_that_of_the_line_go(go_mod: str, version: str) -> None:
    assert app_kind.go_version(go_mod) == version
