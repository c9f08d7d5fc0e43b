"""Builds a release of a program that is ready to run: it has to be one for this machine."""

from __future__ import annotations

import platform
import struct
from pathlib import Path

from ansible.module_utils.app_plan import BuildError, Plan

# The machines by e_machine, its byte order and its word's size (elf(5)), as uname(1) calls them.
MACHINES = {
    (3, "<", 1): "i686",
    (8, ">", 1): "mips",
    (20, ">", 1): "ppc",
    (21, ">", 2): "ppc64",
    (21, "<", 2): "ppc64le",
    (22, ">", 2): "s390x",
    (40, "<", 1): "armv7l",
    (62, "<", 2): "x86_64",
    (183, "<", 2): "aarch64",
    (243, "<", 2): "riscv64",
    (258, "<", 2): "loongarch64",
}


def made(_: Plan) -> list[str]:
    """The names that the build makes in a release, which no artifact may bring."""
    return []


def build(plan: Plan) -> None:
    """Check the program that has been unpacked, and make it executable. Raises BuildError."""
    program = plan.release / plan.name
    if not program.is_file():
        raise BuildError(
            f"the artifact holds no file {plan.name}, which is to be run; zip it again with that at its root"
        )
    found, here = machine(program), platform.machine()
    if not found:
        raise BuildError(
            f"{plan.name} is no program for Linux (no ELF file). Put the executable that the compiler made for "
            f"linux/{here} there, and zip it again"
        )
    if found != here:
        raise BuildError(
            f"{plan.name} is a program for {found}, and this host is {here}. Build it for {here}, and zip it again, or "
            "put its source into the artifact"
        )
    program.chmod(0o755)  # a zip that is unpacked by Python loses the modes


def machine(program: Path) -> str:
    """The machine that a program is for, as uname(1) calls it or by its number in elf(5), or "" for no ELF file."""
    with program.open("rb") as file:
        header = file.read(20)
    if len(header) < 20 or header[:4] != b"\x7fELF":
        return ""
    order = ">" if header[5] == 2 else "<"
    (number,) = struct.unpack(f"{order}H", header[18:20])
    return MACHINES.get((number, order, header[4]), f"machine number {number}")
