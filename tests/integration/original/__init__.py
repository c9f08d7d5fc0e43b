"""Artifacts of a program that behaves as the shop's original Dispatch: its source in Go, and what is built from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

from tests.lab import engine

SOURCE = Path(__file__).parent / "main.go"
LIBRARY, VERSION = "github.com/rabbitmq/amqp091-go", "v1.5.0"
PACKAGED = Path("/usr/share/gocode/src") / LIBRARY  # where Debian's package of the library has it
GO_MOD = f"module dispatch\n\ngo 1.16\n\nrequire {LIBRARY} {VERSION}\n"
MODULES = f"# {LIBRARY} {VERSION}\n## explicit\n{LIBRARY}\n"
BROKEN = 'package main\n\nimport "log"\n\nfunc main() { log.Fatal("a release that ends at once") }\n'


def source(path: Path, note: str = "") -> Path:
    """Make an artifact of the source, with what it needs beside it, because hosts of a test reach no module proxy."""
    _require_go()
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(SOURCE, "main.go")
        archive.writestr("go.mod", GO_MOD)
        archive.writestr("vendor/modules.txt", MODULES)
        for file in sorted(PACKAGED.glob("*.go")):
            if not file.name.endswith("_test.go"):
                archive.write(file, f"vendor/{LIBRARY}/{file.name}")
        archive.writestr("NOTE", note)
    return path


def broken(path: Path) -> Path:
    """Make an artifact of source that can be built, and of which the program ends as soon as it is started."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("main.go", BROKEN)
    return path


def binary(path: Path) -> Path:
    """Make an artifact of the program alone, built on this machine."""
    tree = path.with_suffix("")
    with zipfile.ZipFile(source(path)) as archive:
        archive.extractall(tree)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=vendor"}
    subprocess.run(
        ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", "dispatch", "."], cwd=tree, env=environment, check=True
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tree / "dispatch", "dispatch")
    return path


def _require_go() -> None:
    if not (shutil.which("go") and PACKAGED.is_dir()):
        engine.install("golang-go", "golang-github-rabbitmq-amqp091-go-dev")
