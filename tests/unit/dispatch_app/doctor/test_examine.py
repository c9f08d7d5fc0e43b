"""The doctor without a host: the order of its checks, what it reports, and what it prints."""

from __future__ import annotations

import ast
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dispatch_app
from dispatch_app import __version__, artifact
from dispatch_app.__main__ import main
from dispatch_app.doctor import checks, host, report, units
from dispatch_app.doctor import examine as doctor
from dispatch_app.doctor.case import Case
from dispatch_app.doctor.checks import CHECKS
from dispatch_app.doctor.table import AREAS, ERROR, WARNED, WARNING, Check, Finding, LookError

PACKAGE = Path(dispatch_app.__file__).parent
FOUND = Finding("seen", "cause", "mend {host}")


def found(_: Case) -> Finding:
    return FOUND


def nothing(_: Case) -> None:
    return None


def blind(_: Case) -> None:
    raise LookError("no light")


def examine(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> tuple[list[str], dict[str, tuple[str, str]], int]:
    """The ids found in order, by id the state of each check and why, and the exit code."""
    settings = Check("settings-invalid", "settings", ERROR, "a", nothing)
    permissions = Check("permission-missing", "login", ERROR, "b", blind)
    monkeypatch.setattr(doctor, "CHECKS", (*checks, settings, permissions))
    monkeypatch.setattr(host.Host, "environment", {"AMQP_HOST": "127.0.0.1", "AMQP_PASS": "secret"})
    monkeypatch.setattr(host.Host, "unit", dict.fromkeys(host._PROPERTIES, ""))
    seen = doctor.examine()
    states = {check["id"]: (check["state"], check["because"]) for check in seen["checks"]}
    return [finding["id"] for finding in seen["findings"]], states, seen["exit_code"]


def test_errors_come_before_warnings_and_give_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    warning = Check("a", "service", WARNING, "a", found)
    error = Check("b", "network", ERROR, "b", found)
    assert examine(monkeypatch, warning, error)[::2] == (["b", "a"], doctor.EXIT["network"])
    assert examine(monkeypatch, warning)[::2] == (["a"], WARNED)
    assert examine(monkeypatch)[::2] == ([], 0)


def test_what_a_cause_hides_is_skipped_because_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Check("a", "service", ERROR, "a", found)
    second = Check("b", "service", ERROR, "b", found, ("a",))
    third = Check("c", "service", ERROR, "c", found, ("b",))
    ids, states, _ = examine(monkeypatch, first, second, third)
    assert ids == ["a"]
    assert states["b"] == states["c"] == ("skipped", "a")


def test_a_symptom_is_told_only_where_no_error_explains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    symptom = Check("z", "flow", ERROR, "z", found, symptom=True)
    assert examine(monkeypatch, Check("a", "service", ERROR, "a", found), symptom)[0] == ["a"]
    assert examine(monkeypatch, Check("a", "service", WARNING, "a", found), symptom)[0] == ["z", "a"]


def test_what_could_not_be_looked_at_is_no_finding_and_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Check("a", "flow", ERROR, "a", blind)
    ids, states, code = examine(monkeypatch, first, Check("b", "flow", ERROR, "b", nothing, ("a",)))
    assert (ids, code) == ([], 0)
    assert states["a"] == ("unknown", "no light")
    assert states["b"] == ("ok", "")


def test_a_check_that_ends_by_itself_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(_: Case) -> None:
        raise ZeroDivisionError

    first = Check("a", "flow", ERROR, "a", ends)
    ids, states, _ = examine(monkeypatch, first, Check("b", "flow", ERROR, "b", found))
    assert ids == ["b"]
    assert states["a"] == ("unknown", "the check ended with ZeroDivisionError()")


def test_the_artifact_is_a_program(tmp_path: Path) -> None:
    program = tmp_path / "dispatch.zip"
    program.write_bytes(artifact.build(artifact.contents(PACKAGE, {})))
    shutil.unpack_archive(program, tmp_path / "unpacked")
    for path in (program, tmp_path / "unpacked"):
        done = subprocess.run([sys.executable, "-I", path, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"dispatch {__version__}\n"


def test_a_password_in_the_evidence_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaks(_: Case) -> Finding:
        return Finding("amqp://roboshop:secret@10.0.1.20", "cause", "fix")

    check = Check("a", "service", ERROR, "a", leaks)
    examine(monkeypatch, check)
    assert "secret" not in json.dumps(doctor.examine())


def test_the_text_names_the_finding_its_cause_and_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    examine(monkeypatch, Check("a-fault", "service", ERROR, "the title", found))
    seen = doctor.examine()
    text = report.text(seen)
    assert f"    mend {seen['host']}" in text
    for words in ("error: a-fault", "seen: seen", "cause: cause", "fix, on the host, as root:", "FAULT"):
        assert words in text


def test_only_root_can_ask_the_doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(["doctor"]) == doctor.EX_NOPERM
    assert "as root" in capsys.readouterr().err


def test_every_check_needs_only_checks_before_it() -> None:
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)
    for place, check in enumerate(CHECKS):
        assert set(check.needs) <= set(ids[:place]), check.id
        assert check.area in doctor.EXIT, check.id


def test_the_readme_lists_every_check_and_exit_code() -> None:
    readme = (PACKAGE / "README.md").read_text()
    for check in CHECKS:
        assert f"`{check.id}`" in readme, check.id
    for area, code in doctor.EXIT.items():
        assert f"| {code} | {area} |" in readme


def test_a_unit_s_directives() -> None:
    into: dict[str, list[str]] = {}
    text = (
        "[Unit]\nUser=no\n[Service]\n# User=no\nUser = a\nExecStart=/bin/x \\\n  y\nEnvironment=A=1\nEnvironment=B=2\n"
    )
    units.directives(text, into)
    assert into == {"User": ["a"], "ExecStart": ["/bin/x    y"], "Environment": ["A=1", "B=2"]}
    units.directives("[Service]\nEnvironment=\nEnvironment=C=3\n", into)
    assert into["Environment"] == ["C=3"]


def test_an_environment_file() -> None:
    text = '# A=no\nA="x \\"y\\" z"\nB=one two\n;C=no\n\nD=\nE=it\'s\n'
    assert units.assignments(text) == {"A": 'x "y" z', "B": "one two", "D": "", "E": "it's"}


SOURCES = [
    *sorted(PACKAGE.glob("doctor/**/*.py")),
    *(
        PACKAGE / f"{name}.py"
        for name in (
            "standalone",
            "__main__",
            "settings",
            "database",
            "failures",
            "topology",
            "tls",
            "logs",
            "printable",
            "status",
            "suspects",
        )
    ),
    *(PACKAGE / "amqp" / f"{name}.py" for name in ("__init__", "connection")),
    *(PACKAGE / "ledgers").glob("*.py"),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(PACKAGE)))
def test_what_runs_on_the_platform_s_python_has_the_syntax_of_3_9(source: Path) -> None:
    ast.parse(source.read_text(), feature_version=(3, 9))


def test_a_check_stands_in_the_file_of_its_area() -> None:
    for name in AREAS:
        module = importlib.import_module(f"{checks.__name__}.{name}")
        found = [check for value in vars(module).values() if isinstance(value, tuple) for check in value
                 if isinstance(check, Check)]  # fmt: skip
        assert {check.area for check in found} == {name}
        assert set(found) <= set(CHECKS)


def test_the_artifact_s_doctor_needs_no_package_but_its_own(tmp_path: Path) -> None:
    program = tmp_path / "dispatch.zip"
    program.write_bytes(artifact.build(artifact.contents(PACKAGE, {})))
    code = (
        f"import sys; sys.path[:0] = [{str(program)!r}]; import dispatch_app.doctor.examine as e; print(len(e.CHECKS))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(CHECKS)}\n"
