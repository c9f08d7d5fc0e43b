"""Tells what an artifact is by what stands in its zip, and a release by its id: Python, Go source or a binary.

The controller asks for its own files and what it goes back to, and a host for what it fetches and what stands there.
"""

from __future__ import annotations

import fnmatch
import re
import traceback
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

SHOWN = 8  # names of a zip that a message quotes
# The go.mod reference: the version may be followed by a comment, and other directives may precede it.
GO_LINE = re.compile(r"^\s*go\s+(\d+(?:\.\d+)*)", re.MULTILINE)
GO_MOD_OCTETS = 1 << 20  # no real go.mod is near that long
INSTALLER = "installer/pip-*.whl"  # the pip that an artifact of Python may carry, by its path in it

Entry = tuple[str, bool]  # a name in the zip, and whether its mode says that it can be executed


class KindError(Exception):
    """The zip is no artifact; the message says of "that zip" what is wrong and what to do."""


@dataclass(frozen=True)
class Artifact:
    """What a zip is: ``python``, ``go`` or ``binary``, or why it is none of them."""

    kind: str = ""
    go: str = ""  # the version of Go that its go.mod asks for, such as 1.19; "" where it asks for none
    installer: bool = False  # whether it carries pip
    fault: str = ""  # what follows "…, and " in a message that has named the artifact

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def described(self) -> dict[str, object]:
        """The same without the fault."""
        return {name: value for name, value in asdict(self).items() if name != "fault"}


def examine(path: Path, service: str) -> Artifact:
    """What a zip is, for the service of this name."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged:
                return _damaged(f"{damaged} is damaged")
            entries = [(_plain(one.filename), _executable(one)) for one in archive.infolist()]
            carried = any(fnmatch.fnmatchcase(name, INSTALLER) for name, _ in entries)
            return Artifact(kind(entries, service), _go_line(archive), carried)
    except KindError as error:
        return Artifact(fault=f"that zip {error}")
    except Exception as error:  # zipfile has a dozen kinds of them, by what is damaged
        return _damaged(traceback.format_exception_only(type(error), error)[-1].strip())


def _damaged(reason: str) -> Artifact:
    return Artifact(
        fault=f"that is not a readable zip file ({reason}). Build it with `make artifact`, or set the variable to "
        "another artifact."
    )


def _plain(name: str) -> str:
    """A name as it is once it has been unpacked; bsdtar writes ``./main.go``."""
    return name[2:] if name.startswith("./") else name


def _executable(entry: zipfile.ZipInfo) -> bool:
    return not entry.is_dir() and bool(entry.external_attr >> 16 & 0o111)


def _go_line(archive: zipfile.ZipFile) -> str:
    for entry in archive.infolist():
        if _plain(entry.filename) == "go.mod":
            with archive.open(entry) as file:
                return go_version(file.read(GO_MOD_OCTETS).decode("utf-8", "replace"))
    return ""


def go_version(go_mod: str) -> str:
    """The version of Go that the text of a go.mod asks for, "" where it asks for none."""
    found = GO_LINE.search(go_mod)
    return found[1] if found else ""


def kind(entries: Iterable[Entry], service: str) -> str:
    """What a zip with these entries is, for the service of this name: ``python``, ``go`` or ``binary``.

    Raises KindError where it is none of them, and where it could be two.
    """
    entries = list(entries)
    files = {name: executable for name, executable in entries if "/" not in name}
    go = sorted(name for name in files if name == "go.mod" or name.endswith(".go"))
    if "requirements.txt" in files:
        if go:
            raise KindError(
                f"has requirements.txt, as Python has it, and {_some(go)}, as Go has it, at its root. Which of the two "
                "the service is can't be told: leave the other one out, or move it into a directory."
            )
        return "python"
    if go:
        _require_one_program(entries, service)
        return "go"
    if files.get(service):
        return "binary"
    raise KindError(_none_of_the_three(entries, service))


def kind_of(release: str) -> str:
    """The kind of a release, ``python``, ``go`` or ``binary``, by its id."""
    built_for = release.partition("-")[2]
    if built_for == "binary":
        return "binary"
    # An interpreter's name may be any but these.
    return "go" if re.fullmatch(r"go[0-9][0-9.]*", built_for) else "python"


def _require_one_program(entries: list[Entry], service: str) -> None:
    """Refuse Go source from which more or less than one program would be made. Raises KindError."""
    if any(name.partition("/")[0] == service for name, _ in entries):
        raise KindError(
            f"has Go source and {service} at its root, and {service} is the name of the program that the host builds "
            "from the source. Leave it out, or rename it where it is a directory."
        )
    if any("/" not in name and name.endswith(".go") and not name.endswith("_test.go") for name, _ in entries):
        return
    mains = sorted(name.rpartition("/")[0] for name, _ in entries if _is_main(name))
    raise KindError(
        "has a go.mod but no Go source at its root"
        + (f", and main.go in {_some(mains)}" if mains else "")
        + ". The program is built from the root: put the one main package that the service is there."
    )


def _is_main(name: str) -> bool:
    return name.endswith("/main.go") and not name.startswith("vendor/")


def _none_of_the_three(entries: list[Entry], service: str) -> str:
    root = sorted({name.partition("/")[0] for name, _ in entries if name})
    named = any(name == service for name, _ in entries)
    return (
        f"is none of the three that can be installed: it has {_some(root) or 'nothing'} at its root. Put there a "
        "requirements.txt (Python; an empty file where nothing is needed), or go.mod or *.go files (Go source), or the "
        f"executable {service} (a binary)"
        + (f", which is there, but its mode says that it can't be executed (chmod +x {service})" if named else "")
        + ", and zip it again."
    )


def _some(names: list[str]) -> str:
    """Names for a message, cut short where they are many."""
    return ", ".join([*names[:SHOWN], *(["…"] if len(names) > SHOWN else [])])
