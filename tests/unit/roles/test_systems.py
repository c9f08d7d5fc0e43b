"""A system is known by its os-release(5)."""

from __future__ import annotations

from pathlib import Path

import app_wanted
import pytest
from ansible.module_utils import runtime_systems

SYSTEMS = app_wanted.role_default("python_runtime", "python_runtime_systems")


@pytest.mark.parametrize(
    ("release", "python", "manager"),
    [
        ('ID=debian\nVERSION_ID="13"', "python3.13", "apt"),
        ('NAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\nID_LIKE=debian', "python3.10", "apt"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.6"', "python3.11", "dnf"),
        ("ID=almalinux\nID_LIKE='rhel centos fedora'\nVERSION_ID='9.6'", "python3.11", "dnf"),
        ('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.6"', "python3.11", "dnf"),
        ('ID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"', "python3.11", "dnf"),
        ("ID=debian\r\nVERSION_ID=12\r\n", "python3.11", "apt"),
    ],
)
def test_a_system_is_known_by_its_os_release(release: str, python: str, manager: str) -> None:
    runtime = runtime_systems.choose(release, SYSTEMS)
    assert runtime.interpreter == f"/usr/bin/{python}"
    assert runtime.manager == manager
    assert all(package.startswith(python) for package in runtime.packages)
    assert runtime.compiler == ["gcc", f"{python}-dev" if manager == "apt" else f"{python}-devel"]
    assert runtime.packages


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
    assert (runtime.interpreter, runtime.packages, runtime.compiler) == ("/itself", [], [])


def test_this_system_is_the_one_whose_os_release_stands_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_systems, "OS_RELEASE", tmp_path / "os-release")
    with pytest.raises(FileNotFoundError):
        runtime_systems.this_system(SYSTEMS)
    (tmp_path / "os-release").write_bytes(b'NAME="\xff"\nID=debian\nVERSION_ID=12\n')
    assert runtime_systems.this_system(SYSTEMS).interpreter == "/usr/bin/python3.11"
