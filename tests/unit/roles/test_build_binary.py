"""A binary is taken only where it is one for the machine."""

from __future__ import annotations

import hashlib
import os
import platform
import zipfile
from pathlib import Path

import pytest
from ansible.module_utils import app_build, app_build_binary, app_releases

from tests.unit.roles.test_build import Releases


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    return Releases(tmp_path, monkeypatch)


def elf(machine: str) -> bytes:
    """The header of a program for a machine."""
    (number, order, word) = next(key for key, name in app_build_binary.MACHINES.items() if name == machine)
    octets: bytes = number.to_bytes(2, "little" if order == "<" else "big")
    return b"\x7fELF" + bytes([word, 1 if order == "<" else 2]) + bytes(12) + octets + bytes(44)


def build(releases: Releases, content: bytes, name: str = "dispatch") -> bool:
    with zipfile.ZipFile(releases.artifact, "w") as archive:
        archive.writestr(name, content)
        archive.writestr("config.yml", "")
    sha256 = hashlib.sha256(releases.artifact.read_bytes()).hexdigest()
    plan = app_build.Plan(releases.artifact, sha256, releases.directory / "one", kind="binary", name="dispatch")
    return bool(app_build.build(plan))


def test_a_binary_is_root_s_and_can_be_run(releases: Releases) -> None:
    content = Path("/bin/true").read_bytes()
    assert build(releases, content)
    program = releases.directory / "one/dispatch"
    assert program.read_bytes() == content
    assert (program.stat().st_uid, program.stat().st_mode & 0o777) == (os.geteuid(), 0o755)
    assert (releases.directory / "one/config.yml").stat().st_mode & 0o777 == 0o644
    assert app_releases.stands(releases.directory / "one")
    assert not releases.log.exists()  # no program has run


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "s390x", "i686"])
def test_a_binary_for_another_machine_is_refused_by_both_names(
    releases: Releases, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(app_build.BuildError, match=f"dispatch is a program for {machine}, and this host is riscv64"):
        build(releases, elf(machine))
    assert releases.names() == []


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"MZ" + bytes(64), b"\x7fELF"])
def test_what_is_no_program_for_linux_is_refused(releases: Releases, content: bytes) -> None:
    with pytest.raises(app_build.BuildError, match="dispatch is no program for Linux"):
        build(releases, content)
    assert releases.names() == []


def test_a_machine_that_is_unknown_is_told_by_its_number(releases: Releases) -> None:
    with pytest.raises(app_build.BuildError, match="dispatch is a program for machine number 9999"):
        build(releases, b"\x7fELF\x02\x01" + bytes(12) + (9999).to_bytes(2, "little"))


def test_an_artifact_without_the_program_is_refused(releases: Releases) -> None:
    with pytest.raises(app_build.BuildError, match="the artifact holds no file dispatch"):
        build(releases, b"", name="payment")
