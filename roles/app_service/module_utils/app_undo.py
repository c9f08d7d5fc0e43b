"""Undoes, at the next boot, a switch that a reboot or a power cut has cut short.

As long as a switch is unproven, a unit of its own stands beside the service's, which puts the saved state back before
the service starts. Its lines are plain commands, because nothing of Ansible's is on the host at boot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.app_disk import sync
from ansible.module_utils.app_proof import Service

UNIT = """\
# Written by the role app_service for the time of one switch, and removed when that has ended.
[Unit]
Description=Undo the switch of {name} that was cut short
RequiresMountsFor={home} {configuration}
Before={name}.service
ConditionPathExists={backup}
# A switch of this boot holds this file, and finishes or undoes its work itself.
ConditionPathExists=!{lock}

[Service]
Type=oneshot
{commands}
"""


def arm(service: Service, saved: Path, staged: Path, lock: Path) -> None:
    """Have the next boot put back the state in `saved`, which is about to become the service's backup.

    Once a boot has had a switch of the service, the file `lock` exists until its end. Raises OSError.
    """
    unit, link = places(service)
    lines = [f"ExecStart={' '.join(map(quoted, command))}" for command in commands(service, saved, staged)]
    unit.write_text(
        UNIT.format(
            name=service.name,
            home=service.home,
            configuration=service.configuration,
            backup=service.backup,
            lock=lock,
            commands="\n".join(lines),
        ),
        encoding="utf-8",
    )
    unit.chmod(0o644)
    link.parent.mkdir(mode=0o755, exist_ok=True)
    with suppress(FileExistsError):
        link.symlink_to(unit)
    for path in (unit, link.parent, unit.parent):
        sync(path)


def disarm(service: Service) -> None:
    """Have the next boot start what is live. Raises OSError."""
    for path in reversed(places(service)):
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync(path.parent)


def commands(service: Service, saved: Path, staged: Path) -> Iterator[list[str]]:
    """The commands that put the state in `saved` back; a boot that is cut short, too, can run them all again."""
    undone = service.configuration / "next.undone"
    had_unit = (saved / "unit").exists()
    if not had_unit:
        yield ["systemctl", "disable", service.name]
    for name, path in service.live.items():
        yield ["rm", "--recursive", "--force", "--", str(path)]
        if (saved / name).exists():
            yield ["cp", "--archive", "--", str(service.backup / name), str(path)]
    release = saved / "current"
    if release.is_symlink():
        link = ["--symbolic", "--force", "--no-dereference", "--", str(release.readlink()), str(service.current)]
        yield ["ln", *link]
    else:
        yield ["rm", "--force", "--", str(service.current)]
    yield ["sync"]
    yield ["systemctl", "daemon-reload"]
    if not had_unit:
        # The start that the boot has queued would fail without its unit.
        yield ["systemctl", "stop", "--no-block", service.name]
    yield ["rm", "--recursive", "--force", "--", str(undone), str(service.spare), str(staged)]
    yield ["mv", "--no-target-directory", "--", str(service.backup), str(undone)]
    yield ["rm", "--recursive", "--force", "--", str(undone), *map(str, reversed(places(service)))]


def places(service: Service) -> tuple[Path, Path]:
    """The unit, and the link that has it started at boot (``systemctl enable`` would also reload systemd)."""
    unit = service.live["unit"].with_name(f"{service.name}-switch-undo.service")
    return unit, unit.parent / "multi-user.target.wants" / unit.name


def quoted(word: str) -> str:
    """Quote a word of a command line as systemd.service(5) says, so that no specifier or variable is seen in it."""
    for one, other in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(one, other)
    return f'"{word}"'
