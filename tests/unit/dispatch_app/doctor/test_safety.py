"""The doctor on a host in a stranger's hands: the service's files never run as root, and nothing holds it up."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatch_app.doctor import commands, host, quick_check, report, state, table, units
from dispatch_app.doctor.case import Case
from dispatch_app.doctor.checks import fixes, ledger, release, service

NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
UNIT = "# Written by the role app_service\n[Unit]\nStartLimitIntervalSec=0\n[Service]\nUser=nobody\nRestart=always\n"


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A directory that every user may enter."""
    for path in (tmp_path, *tmp_path.parents[:-2]):
        path.chmod(path.stat().st_mode | 0o055)
    return tmp_path


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    """A host whose unit says `User=nobody` and nothing else."""
    monkeypatch.setattr(host.Host, "unit", dict.fromkeys(host._PROPERTIES, ""))
    monkeypatch.setattr(host.Host, "unit_text", UNIT)
    return Case()


def program(path: Path, script: str) -> Path:
    path.write_text(script)
    path.chmod(0o755)
    return path


@as_root
def test_a_program_of_the_service_s_runs_as_its_user_without_root_s_environment(
    case: Case, monkeypatch: pytest.MonkeyPatch, open_path: Path
) -> None:
    monkeypatch.setenv("ROOTS_SECRET", "hunter2")
    stub = program(open_path / "python", "#!/bin/sh\necho uid=$(id -u) $*; env\n")
    monkeypatch.setattr(host.Host, "executable", stub)
    told = case.host.python("print(1)")
    assert f"uid={NOBODY.pw_uid} -I -B -c print(1)" in told
    assert "hunter2" not in told
    assert "LC_ALL=C" in told


def test_without_its_user_nothing_of_the_service_s_runs(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.Host, "user", None)
    monkeypatch.setattr(host.Host, "executable", Path("/bin/true"))
    with pytest.raises(table.LookError, match="no user nobody"):
        case.host.python("")


def test_a_program_that_leaves_another_behind_is_left_in_time(tmp_path: Path) -> None:
    stub = program(tmp_path / "stub", "#!/bin/sh\nsetsid sleep 9 &\necho done\n")
    begun = time.monotonic()
    assert commands.run(str(stub), seconds=0.5).code is None
    assert time.monotonic() - begun < 3


def test_of_a_program_that_never_ends_printing_only_so_much_is_read() -> None:
    begun = time.monotonic()
    done = commands.run("yes", seconds=30)
    assert commands._MOST <= len(done.output) < commands._MOST + (1 << 17)
    assert time.monotonic() - begun < 20


@as_root
def test_the_ledger_is_read_as_the_service_s_user(case: Case, monkeypatch: pytest.MonkeyPatch, open_path: Path) -> None:
    file = open_path / "ledger.db"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE orders (id)")
    db.close()
    file.write_bytes(b"x" * 64 + file.read_bytes()[64:])
    monkeypatch.setattr(state.State, "directory", open_path)
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert case.state.problem() == "file is not a database"
    file.chmod(0o600)
    assert case.state.problem() is None  # root could read it


def test_a_ledger_that_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ledger.db")
    assert quick_check.problem(tmp_path / "ledger.db") == "this is not a regular file"


@pytest.fixture
def dripping() -> Iterator[str]:
    """An address where an answer comes octet by octet, and never ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        ended = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                while not ended.wait(0.1):
                    connection.sendall(b".")

        thread = threading.Thread(target=drip)
        thread.start()
        yield "{}:{}".format(*server.getsockname())
        ended.set()
        thread.join()


def test_an_answer_that_never_ends_is_none(case: Case, monkeypatch: pytest.MonkeyPatch, dripping: str) -> None:
    monkeypatch.setattr(case.process, "http", f"http://{dripping}")
    begun = time.monotonic()
    assert case.process.ask("/livez") == (0, "no whole answer within 2 s")
    assert time.monotonic() - begun < 4


def test_metrics_that_are_none_end_no_doctor(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(case.process), "ask", lambda *_: (200, "dispatch_up yes\n"))
    assert Case().process.counters == {}


def test_without_pika_what_amqp_tells_is_unknown(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pika", None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        variables = {"AMQP_HOST": "127.0.0.1", "AMQP_PORT": str(server.getsockname()[1]), "AMQP_USER": "a"}
        monkeypatch.setattr(case.host, "environment", {**variables, "AMQP_PASS": "b"})
        with pytest.raises(table.LookError, match="this Python has no pika"):
            case.broker.refusal("exchange_declare")


# -- drop-ins ------------------------------------------------------------------------------


def drop_in(case: Case, monkeypatch: pytest.MonkeyPatch, directory: Path, text: str) -> Any:
    directory.mkdir(exist_ok=True)
    file = directory / "site.conf"
    file.write_text(text)
    monkeypatch.setattr(case.host, "drop_ins", [str(file)])  # which the case has read already
    return service.unit_edited(case)


@pytest.mark.parametrize("text", ["[Service]\nOOMPolicy=continue\n", "[Service]\nRestart=always\n", ""])
def test_a_site_wide_drop_in_that_changes_nothing_of_ours_is_no_finding(
    case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setattr(service, "UNIT", tmp_path / "dispatch.service")
    assert drop_in(case, monkeypatch, tmp_path / "service.d", text) is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[Service]\nRestart=no\n", "Restart"),
        ("[Service]\nUser=\n", "User"),
        ("[Unit]\nStartLimitIntervalSec=5\n", "StartLimitIntervalSec"),
    ],
)
def test_a_site_wide_drop_in_that_changes_the_unit_is_hidden_from_it(
    case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, named: str
) -> None:
    finding = drop_in(case, monkeypatch, tmp_path / "service.d", text)
    assert f"site.conf ({named})" in finding.evidence
    assert "ln -sf /dev/null /etc/systemd/system/dispatch.service.d/site.conf" in finding.command
    assert "revert" not in finding.command


def test_a_drop_in_of_the_unit_alone_is_removed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.Host, "overriding", {"/etc/systemd/system/dispatch.service.d/x.conf": []})
    finding = service.unit_edited(case)
    assert finding
    removed = "rm -f /etc/systemd/system/dispatch.service.d/x.conf"
    assert finding.command == f"{removed} && systemctl daemon-reload && {fixes.RESTART}"


LXC = "[Service]\nNoNewPrivileges=no\nLoadCredential=\n"


@pytest.mark.parametrize(("ours", "named"), [("zzzz.conf", "NoNewPrivileges"), ("a.conf", "LoadCredential")])
def test_what_our_drop_in_gives_back_is_not_taken_away(
    case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ours: str, named: str
) -> None:
    unit = f"{host.OURS}\n[Service]\nNoNewPrivileges=yes\nLoadCredential=a:/a\n"
    monkeypatch.setattr(case.host, "unit_text", unit)
    own, lxc = tmp_path / ours, tmp_path / "zzz-lxc-service.conf"
    own.write_text(f"{host.OURS}\n[Service]\nLoadCredential=a:/a\n")
    lxc.write_text(LXC)
    monkeypatch.setattr(case.host, "drop_ins", [str(path) for path in sorted((own, lxc), key=lambda path: path.name)])
    assert list(case.host.overriding) == [str(lxc)]
    assert named in case.host.overriding[str(lxc)]
    assert ("LoadCredential" in case.host.overriding[str(lxc)]) is (ours == "a.conf")


def test_a_state_directory_that_is_a_link_is_named(case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    link, volume = tmp_path / "dispatch", tmp_path / "my volume"
    volume.mkdir()
    monkeypatch.setattr(case.state, "directory", link)
    assert ledger.state_linked(case) is None  # nothing is there
    link.symlink_to(volume)
    finding = ledger.state_linked(case)
    assert finding
    assert finding.evidence == f"{link} is a symbolic link to {volume}"
    line = f"{tmp_path}/my\\040volume {link} none bind 0 0"
    assert f"printf '%s\\n' '{line}' >> /etc/fstab && mount {link}" in finding.command
    link.unlink()
    (tmp_path / "private" / "dispatch").mkdir(parents=True)
    link.symlink_to("private/dispatch")
    assert ledger.state_linked(case) is None


def test_a_unit_s_changes_are_told_by_their_effect() -> None:
    unit = "[Service]\nEnvironment=A=1\nRestart=always\n"
    assert units.changed(unit, "[Service]\nEnvironment=B=2\n") == ["Environment"]
    assert units.changed(unit, "[Service]\nRestart=no\nRestart=always\n") == ["Restart"]
    assert units.changed(unit, "[Service]\nRestart=always\n[Install]\nEnvironment=C=3\n") == []


# -- fixes ---------------------------------------------------------------------------------

AWKWARD = "a b;touch x"


def test_every_path_in_a_fix_is_quoted(case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / AWKWARD
    (place / "venv").mkdir(parents=True)
    (place / "requirements.txt").touch()
    monkeypatch.setattr(host.Host, "release", place)
    monkeypatch.setattr(host.Host, "home", place)
    monkeypatch.setattr(host.Host, "new_interpreter", "/usr/bin/python3.11")
    monkeypatch.setattr(host.Host, "executable", place / "dispatch")
    monkeypatch.setattr(host.Host, "venv", None)
    monkeypatch.setattr(host.Host, "fragment", place / "x.service")
    monkeypatch.setattr(host.Host, "may", lambda *_: False)
    monkeypatch.setattr(host.Host, "directive", lambda *_: AWKWARD)
    monkeypatch.setattr(state.State, "directory", place)
    monkeypatch.setattr(state.State, "problem", lambda _: "torn")
    (place / "main.go").touch()
    found = [fixes.rebuild(case, "", ""), fixes.reinstall(case, "", ""), ledger.ledger_damaged(case)]
    found += [ledger.state_read_only(case), release.executable_missing(case)]
    monkeypatch.setattr(host.Host, "user", None)
    found += [release.user_missing(case)]
    monkeypatch.setattr(host.Host, "user", NOBODY)
    monkeypatch.setattr(host.Host, "ours", False)
    found += [release.user_wrong(case)]
    (place / "dispatch").touch()
    monkeypatch.setattr(Path, "is_dir", lambda path: path == place)
    found += [release.unreadable(case), release.not_executable(case)]
    for finding in found:
        assert finding
        assert "touch" not in shlex.split(finding.command.replace(";", " ; ")) or "'" in finding.command
        tokens = list(shlex.shlex(finding.command, posix=True, punctuation_chars=True))
        assert ";" not in tokens, finding.command


def test_a_fix_opens_no_more_than_what_is_closed(case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "code.py").touch(0o600)
    (tmp_path / "secrets.txt").touch(0o600)
    outside = tmp_path.parent / "shadow"
    outside.touch(0o600)
    (tmp_path / "a.py").symlink_to(outside)
    monkeypatch.setattr(host.Host, "release", tmp_path)
    monkeypatch.setattr(host.Host, "venv", tmp_path / "venv")
    monkeypatch.setattr(host.Host, "may", lambda _, test, __: test == "-x")
    finding = release.unreadable(case)
    assert finding
    assert finding.command == f"chmod a+r {tmp_path}/code.py && {fixes.RESTART}"
    monkeypatch.setattr(host.Host, "executable", tmp_path / "a.py")
    monkeypatch.setattr(host.Host, "may", lambda *_: False)
    finding = release.not_executable(case)
    assert finding
    assert "chmod" not in finding.command


def test_only_a_distribution_s_python_is_installed_again(
    case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host.Host, "venv", tmp_path)
    monkeypatch.setattr(host.Host, "release", tmp_path)
    monkeypatch.setattr(host.Host, "executable", tmp_path / "python")
    monkeypatch.setattr(host.Host, "interpreter", tmp_path / "evil-package")
    finding = release.runtime_missing(case)
    assert finding
    assert "evil-package" not in finding.command


# -- the terminal --------------------------------------------------------------------------


def test_what_is_printed_moves_no_cursor_and_forges_no_line() -> None:
    evil = "\x1b[2Jgone\r\nerror: forged\u202e\udc80"
    assert report.printable(evil) == "\\x1b[2Jgone error: forged\\u202e\\udc80"
    finding = {"id": "x", "area": "flow", "severity": "error", "evidence": evil, "cause": evil,
               "fix": {"where": "host", "command": evil}}  # fmt: skip
    seen = {"host": evil, "healthy": False, "findings": [finding], "seconds": 1,
            "areas": report.areas([finding], []),
            "checks": [{"id": "y", "area": "flow", "title": "z", "state": "unknown", "because": evil}]}  # fmt: skip
    text = report.text(seen)
    assert all(line.isprintable() for line in text.split("\n"))
    assert not any(line.startswith("error: forged") for line in text.split("\n"))
