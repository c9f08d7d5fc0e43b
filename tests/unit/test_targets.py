"""Every host that is supported finds in the artifact a wheel of all that it needs there, without an index."""

from __future__ import annotations

import io
import itertools
import re
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from dispatch_app import artifact

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = yaml.safe_load((ROOT / "roles/python_runtime/defaults/main.yml").read_text())["python_runtime_systems"]
ARCHITECTURES = ("x86_64", "aarch64")
# The version of glibc that each system has, which says which manylinux wheels run there (PEP 600).
GLIBC = {
    "debian-12": 36, "debian-13": 41, "ubuntu-22": 35, "ubuntu-24": 39, "ubuntu-26": 43, "rhel-9": 34, "rhel-10": 39,
    "amzn-2023": 34,
}  # fmt: skip


@pytest.fixture(scope="module")
def built() -> zipfile.ZipFile:
    return zipfile.ZipFile(ROOT / "dist" / "dispatch.zip")


def python_of(system: str) -> tuple[int, int]:
    found = re.fullmatch(r"/usr/bin/python(\d+)\.(\d+)", SYSTEMS[system]["interpreter"])
    assert found
    return int(found[1]), int(found[2])


def tags(system: str, architecture: str) -> set[Tag]:
    """The tags of the wheels that the system's Python takes."""
    version = python_of(system)
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in range(GLIBC[system], 16, -1)]
    platforms.append(f"linux_{architecture}")
    return {*cpython_tags(version, platforms=platforms), *compatible_tags(version, platforms=platforms)}


class Wheels:
    """What a directory of the artifact holds for one target."""

    def __init__(self, built: zipfile.ZipFile, directory: str, system: str, architecture: str) -> None:
        python = ".".join(map(str, python_of(system)))
        self.environment = {
            "python_version": python, "python_full_version": f"{python}.0", "platform_machine": architecture,
            "sys_platform": "linux", "os_name": "posix", "platform_system": "Linux",
            "implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": "",
        }  # fmt: skip
        wanted = tags(system, architecture)
        self.held: dict[str, tuple[str, Message]] = {}
        for name in built.namelist():
            if name.startswith(f"{directory}/"):
                package, version, _, of_wheel = parse_wheel_filename(name.partition("/")[2])
                metadata = self.metadata(built.read(name))
                if of_wheel & wanted and python + ".0" in SpecifierSet(metadata["Requires-Python"] or ""):
                    self.held[package] = (str(version), metadata)

    @staticmethod
    def metadata(wheel: bytes) -> Message:
        archive = zipfile.ZipFile(io.BytesIO(wheel))
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode())

    def missing(self, requirements: list[str]) -> Iterator[str]:
        """Those of the requirements, and of what these require, that no wheel meets."""
        open_ones, seen = [Requirement(one) for one in requirements], set()
        while open_ones:
            one = open_ones.pop()
            if str(one) in seen or (one.marker and not one.marker.evaluate(self.environment)):
                continue
            seen.add(str(one))
            version, metadata = self.held.get(canonicalize_name(one.name), ("", None))
            if metadata is None or version not in one.specifier:
                yield str(one)
            else:
                open_ones += [Requirement(needed) for needed in metadata.get_all("Requires-Dist") or []]


def pins(text: str) -> list[str]:
    return [line.partition(" --hash")[0] for line in artifact._lines(text)]


@pytest.mark.parametrize(("system", "architecture"), [*itertools.product(SYSTEMS, ARCHITECTURES)])
def test_a_host_finds_all_that_it_needs_in_the_artifact(built: zipfile.ZipFile, system: str, architecture: str) -> None:
    requirements = pins(built.read("requirements.txt").decode())
    assert requirements
    assert list(Wheels(built, "wheels", system, architecture).missing(requirements)) == []
    assert list(Wheels(built, "installer", system, architecture).missing(["pip"])) == []


def test_what_is_not_there_would_be_missed(built: zipfile.ZipFile) -> None:
    wheels = Wheels(built, "wheels", "debian-12", "aarch64")
    assert list(wheels.missing(["uvloop>=1", "pika>=99"])) == ["pika>=99", "uvloop>=1"]
    del wheels.held["typing-extensions"]
    assert any(one.startswith("typing-extensions") for one in wheels.missing(["psycopg"]))


def test_the_artifact_is_built_for_every_python_of_a_system() -> None:
    assert {".".join(map(str, python_of(system))) for system in SYSTEMS} == {*artifact.PYTHONS}
    assert GLIBC.keys() == SYSTEMS.keys()
