"""A system is known by its os-release(5)."""

from __future__ import annotations

from pathlib import Path

import app_wanted
import pytest
from ansible.module_utils import go_version, runtime_systems

SYSTEMS = app_wanted.role_default("python_runtime", "python_runtime_systems")
GO_SYSTEMS = app_wanted.role_default("go_runtime", "go_runtime_systems")


@pytest.mark.parametrize(
    ("release", "python", "manager"),
    [
        ('ID=debian\nVERSION_ID="13"', "python3.13", "apt"),
        ('NAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\nID_LIKE=debian', "python3.10", "apt"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.6"', "python3.11", "dnf"),
        ("ID=almalinux\nID_LIKE='rhel centos fedora'\nVERSION_ID='9.6'", "python3.11", "dnf"),
        ('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.6"', "python3.11", "dnf"),
        ('NAME="Ubuntu"\nVERSION_ID="26.04"\nID=ubuntu\nID_LIKE=debian', "python3.14", "apt"),
        ('ID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"', "python3.11", "dnf"),
        ("ID=debian\r\nVERSION_ID=12\r\n", "python3.11", "apt"),
    ],
)
def test_a_system_is_known_by_its_os_release(release: str, python: str, manager: str) -> None:
    runtime = runtime_systems.choose(release, SYSTEMS)
    assert runtime.interpreter == f"/usr/bin/{python}"
    assert runtime.manager == manager
    assert all(package.startswith(python) for package in runtime.packages)
    assert runtime.toolchain == ["gcc", f"{python}-dev" if manager == "apt" else f"{python}-devel"]
    assert runtime.packages


@pytest.mark.parametrize(("system", "packages"), [("debian", ["python3.11"]), ("rhel", ["python3.11"])])
def test_an_artifact_that_carries_pip_needs_no_other(system: str, packages: list[str]) -> None:
    release = f"ID={system}\nVERSION_ID={ {'debian': 12, 'rhel': 9}[system] }"
    assert runtime_systems.choose(release, SYSTEMS, bare=True).packages == packages


def test_a_table_without_such_packages_has_the_others() -> None:
    table = {"debian-12": {"interpreter": "/usr/bin/python3", "packages": ["python3-venv"]}}
    assert runtime_systems.choose("ID=debian\nVERSION_ID=12", table, bare=True).packages == ["python3-venv"]


def test_a_system_without_a_version_is_refused() -> None:
    with pytest.raises(runtime_systems.UnsupportedSystemError, match="Arch Linux is not a supported system"):
        runtime_systems.choose("PRETTY_NAME='Arch Linux'\nID=arch", SYSTEMS)


def test_a_system_that_the_table_lacks_is_told_what_it_holds() -> None:
    with pytest.raises(runtime_systems.UnsupportedSystemError) as refused:
        runtime_systems.choose(
            'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"', {"Slackware-15": {}}
        )
    assert "Debian GNU/Linux 12 (bookworm) is not a supported system. Supported: Slackware-15" in str(refused.value)
    assert "describe yours in the variable python_runtime_systems" in str(refused.value)


def test_the_system_itself_comes_before_those_it_is_like() -> None:
    table = {"rhel-9": {"interpreter": "/like"}, "rocky-9": {"interpreter": "/itself"}}
    runtime = runtime_systems.choose('ID=rocky\nID_LIKE="rhel fedora"\nVERSION_ID=9.6', table)
    assert (runtime.interpreter, runtime.packages, runtime.toolchain) == ("/itself", [], [])


def test_this_system_is_the_one_whose_os_release_stands_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_systems, "OS_RELEASE", tmp_path / "os-release")
    with pytest.raises(FileNotFoundError):
        runtime_systems.this_system(SYSTEMS)
    (tmp_path / "os-release").write_bytes(b'NAME="\xff"\nID=debian\nVERSION_ID=12\n')
    assert runtime_systems.this_system(SYSTEMS).interpreter == "/usr/bin/python3.11"


def test_every_system_has_both_runtimes() -> None:
    assert GO_SYSTEMS.keys() == SYSTEMS.keys()


@pytest.mark.parametrize(
    ("release", "package", "version"),
    [
        ('ID=debian\nVERSION_ID="12"', "golang-go", "1.19"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"', "golang-go", "1.22"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.6"', "golang", ""),
    ],
)
def test_a_system_s_go_is_known_where_it_keeps_one(release: str, package: str, version: str) -> None:
    runtime = runtime_systems.choose(release, GO_SYSTEMS, "go")
    assert (runtime.compiler, runtime.packages, runtime.version) == ("/usr/bin/go", [package], version)
    assert runtime.interpreter == ""


def test_a_system_without_go_is_told_which_variable_describes_it() -> None:
    with pytest.raises(runtime_systems.UnsupportedSystemError, match=r"in the variable go_runtime_systems\."):
        runtime_systems.choose("ID=arch", GO_SYSTEMS, "go")


def test_a_binary_needs_no_runtime() -> None:
    assert runtime_systems.this_system({}, "binary") == runtime_systems.Runtime()


class Programs:
    """A compiler and dnf that answer in a directory."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        monkeypatch.setenv("PATH", f"{root}:/usr/bin:/bin")
        (root / "os-release").write_text("ID=rhel\nVERSION_ID=9.6\n")
        monkeypatch.setattr(runtime_systems, "OS_RELEASE", root / "os-release")

    def answer(self, name: str, said: str, code: int = 0) -> None:
        (self.root / name).write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
        (self.root / name).chmod(0o755)

    def version(self, stated: str = "") -> str:
        row = {"compiler": str(self.root / "go"), "packages": ["golang"], **({"version": stated} if stated else {})}
        return str(runtime_systems.this_system({"rhel-9": row}, "go").version)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(tmp_path, monkeypatch)


@pytest.mark.parametrize("said", ["go version go1.24.4 (Red Hat 1.24.4-1.el9_6) linux/amd64", "go version go1.24 x/y"])
def test_the_version_is_that_of_the_compiler_on_the_host(programs: Programs, said: str) -> None:
    programs.answer("go", said)
    programs.answer("dnf", "1.25.1")
    assert programs.version("1.19") == "1.24"


def test_before_there_is_a_compiler_the_version_is_that_of_the_table(programs: Programs) -> None:
    programs.answer("dnf", "1.25.1")
    assert programs.version("1.19") == "1.19"


def test_before_there_is_a_compiler_dnf_is_asked_where_the_version_moves_on(programs: Programs) -> None:
    programs.answer("dnf", "1.25.1")
    assert programs.version() == "1.25"


@pytest.mark.parametrize(("said", "code"), [("", 0), ("Error: no repositories", 1), ("1.25.1", 1)])
def test_a_version_that_can_t_be_told_is_asked_for(programs: Programs, said: str, code: int) -> None:
    programs.answer("dnf", said, code)
    with pytest.raises(go_version.GoVersionError, match=r"`dnf info golang` has to answer.*go_runtime_systems"):
        programs.version()
