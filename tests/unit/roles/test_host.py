"""What stands on a host is compared with what is wanted of it."""

from __future__ import annotations

import base64
import os
import pwd
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils import app_comparison, app_host

SYSTEMD_VERSION = app_host.systemd_version.__wrapped__  # which conftest.py keeps from all other tests


def test_a_comparison_says_in_what_a_path_differs(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("what is there")
    file.chmod(0o640)
    entry = {"owner": file.owner(), "group": file.group(), "mode": "0640"}
    same = {**entry, "content": "what is there"}
    assert app_host.differences(file, same) == []
    assert app_host.differences(file, {**same, "mode": "0600"}) == ["mode"]
    assert app_host.differences(file, {**same, "owner": "x", "group": "y"}) == ["owner", "group"]
    assert app_host.differences(file, {**same, "content": "another"}) == ["content"]
    assert app_host.differences(file, entry) == ["another kind of file"]
    assert app_host.differences(tmp_path / "none", same) == ["missing"]
    assert app_host.differences(file / "below", same) == ["missing"]
    link = tmp_path / "link"
    link.symlink_to(file)
    assert app_host.differences(link, same) == ["another kind of file"]
    directory = {"owner": tmp_path.owner(), "group": tmp_path.group(), "mode": f"{tmp_path.stat().st_mode & 0o777:04o}"}
    assert app_host.differences(tmp_path, directory) == []
    assert app_host.differences(tmp_path, {**directory, "content": ""}) == ["another kind of file"]


def test_a_secret_is_compared_in_base64(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"not\xffseen")
    file.chmod(0o600)
    entry = {"owner": file.owner(), "group": file.group(), "mode": "0600"}
    assert app_host.differences(file, {**entry, "secret": base64.b64encode(b"not\xffseen").decode()}) == []
    assert app_host.differences(file, {**entry, "secret": base64.b64encode(b"other").decode()}) == ["content"]


def test_unknown_owners_are_numbers() -> None:
    assert (app_host.owner(0), app_host.group(0)) == ("root", "root")
    assert (app_host.owner(4_000_000_001), app_host.group(4_000_000_002)) == ("4000000001", "4000000002")


@pytest.mark.parametrize(("enforced", "unlike"), [(True, ["setype"]), (False, [])])
def test_a_label_counts_where_selinux_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enforced: bool, unlike: list[str]
) -> None:
    monkeypatch.setattr(app_host, "SELINUX", tmp_path if enforced else tmp_path / "none")
    monkeypatch.setattr(app_host.os, "getxattr", lambda *_: b"system_u:object_r:default_t:s0\0")
    mode = f"{tmp_path.stat().st_mode & 0o777:04o}"
    wanted = {"owner": tmp_path.owner(), "group": tmp_path.group(), "mode": mode, "setype": "usr_t"}
    assert app_host.differences(tmp_path, wanted) == unlike
    assert app_host.differences(tmp_path, {**wanted, "setype": "default_t"}) == ([] if enforced else unlike)


def state(monkeypatch: pytest.MonkeyPatch, *states: str, enabled: str = "enabled") -> None:
    """Let systemd say this of the unit, one after the other."""
    left = list(states)

    def run(*_: str) -> str:
        said = left.pop(0) if len(left) > 1 else left[0]
        return f"ActiveState={said}\nUnitFileState={enabled}\n" if said else ""

    monkeypatch.setattr(app_host, "BOOTED", Path("/"))
    monkeypatch.setattr(app_host, "run", run)


@pytest.mark.parametrize(
    ("active", "status", "said"),
    [
        ("active", 200, ""),
        ("active", 503, "{url} answers HTTP/1.0 503 Service Unavailable: not connected\nto a broker"),
        ("active", None, "{url} does not answer: [Errno 111] Connection refused"),
        ("activating", 200, "systemd says activating"),
        ("", 200, "systemd says nothing of it"),
    ],
)
def test_a_comparison_says_why_a_service_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, active: str, status: int | None, said: str
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" and status else 404)
            self.end_headers()
            self.wfile.write(b"not connected\nto a broker\n")

    state(monkeypatch, active)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/readyz"
        thread = threading.Thread(target=server.serve_forever)
        if status:
            thread.start()
        else:
            server.server_close()
        answer = app_comparison.not_running({"name": "dispatch", "ready_url": url})
        if status:
            server.shutdown()
            thread.join()
    assert answer == said.format(url=url)


@contextmanager
def answering(text: bytes) -> Iterator[str]:
    """A peer that says this to whoever comes; yields its URL."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(text)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/readyz"
        thread.join()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nready", ""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "{url} answers SSH-2.0-OpenSSH_9.2:"),
        (b"", "{url} answers nothing:"),
        (b"HTTP/1.1 500 \xff\r\n\r\n", "{url} answers HTTP/1.1 500 \N{REPLACEMENT CHARACTER}:"),
    ],
)
def test_an_answer_that_is_no_http_is_no_readiness(text: bytes, said: str) -> None:
    with answering(text) as url:
        answer = app_host.not_ready(url)
    assert answer.strip() == said.format(url=url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:no/readyz", "http://127.0.0.1:99999/readyz"])
def test_a_port_that_is_none_is_no_readiness(url: str) -> None:
    assert app_host.not_ready(url).startswith(f"{url} does not answer: ")


def test_a_comparison_waits_until_the_service_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    state(monkeypatch, "activating", "activating", "active")
    monkeypatch.setattr(app_comparison, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now))
    service = {"name": "dispatch", "ready_url": ""}
    assert app_comparison.not_running(service, 30) == ""
    assert 0 < now < 30
    state(monkeypatch, "activating")
    assert app_comparison.not_running(service, 30) == "systemd says activating"
    assert 30 < now < 35


def test_a_service_that_does_not_start_at_boot_is_not_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    service = {"name": "dispatch", "ready_url": ""}
    state(monkeypatch, "active", enabled="disabled")
    assert app_comparison.not_running(service) == "it is disabled"
    state(monkeypatch, "active", enabled="")
    assert app_comparison.not_running(service) == "it is not enabled"


@pytest.mark.parametrize(("enabled", "said"), [(True, ""), (False, "it is not enabled")])
def test_in_an_image_a_service_has_to_be_enabled_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool, said: str
) -> None:
    state(monkeypatch, "inactive")
    monkeypatch.setattr(app_host, "BOOTED", tmp_path / "none")
    monkeypatch.setattr(app_host, "enabled", lambda _: enabled)
    assert app_comparison.not_running({"name": "dispatch", "ready_url": ""}) == said


@pytest.mark.parametrize(
    ("shadow", "locked"),
    [
        (b"{name}:!*:19000::::::\n", True),
        (b"{name}:!:19000::::::\n", True),
        (b"no colon\n\n{name}:!:1\n", True),
        (b"\xff:x:1\n{name}:!:1\n", True),
        (b"{name}:*:19000::::::\n", False),
        (b"{name}:$y$hash:19000::::::\n", False),
        (b"another:$y$hash:1\n+\n", True),  # without a line for the user, no password lets it in
        (b"", True),
    ],
)
def test_an_account_is_known_by_odd_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shadow: bytes, locked: bool
) -> None:
    entry = pwd.getpwuid(os.getuid())
    file = tmp_path / "shadow"
    file.write_bytes(shadow.replace(b"{name}", entry.pw_name.encode()))
    monkeypatch.setattr(app_host, "SHADOW", file)
    wanted = {"comment": entry.pw_gecos, "shell": entry.pw_shell, "locked": locked}
    assert app_host.account(entry.pw_name) == wanted
    assert app_host.account("nobody-of-that-name") is None


@pytest.mark.parametrize(
    ("line", "shadow", "known"),
    [
        ("roboshop:x:1:1::/:/bin/sh\n", "roboshop:!:1\n", {"locked": True}),
        ("roboshop:x:1:1::/:/bin/sh\n", "roboshop:$y$hash:1\n", {"locked": False}),
        ("roboshop:x:1:1::/:/bin/sh\n", "roboshop::1\n", {"locked": False}),  # as passwd(1) --delete leaves it
        ("roboshop:x:1:1::/:/bin/sh\n", "", {"locked": True}),
        ("roboshop:x:1:1::/:/bin/sh\n", None, {"locked": True}),
        # Without shadow(5), usermod(8) --lock writes this.
        ("roboshop:!$y$hash:1:1::/:/bin/sh\n", None, {"locked": True}),
        ("roboshop:$y$hash:1:1::/:/bin/sh\n", None, {"locked": False}),
        ("roboshop::1:1::/:/bin/sh\n", "roboshop:!:1\n", {"locked": False}),
        ("root:x:0:0::/:/bin/sh\nroboshop2:x:1:1::/:/bin/sh\n", "", {"locked": False, "foreign": True}),
        ("", None, {"locked": False, "foreign": True}),
    ],
)
def test_a_user_is_known_by_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, shadow: str | None, known: dict[str, bool]
) -> None:
    (tmp_path / "passwd").write_text(line)
    if shadow is not None:
        (tmp_path / "shadow").write_text(shadow)
    monkeypatch.setattr(app_host, "PASSWD", tmp_path / "passwd")
    monkeypatch.setattr(app_host, "SHADOW", tmp_path / "shadow")
    password = line.partition("roboshop:")[2].partition(":")[0] or "*"
    entry = SimpleNamespace(pw_gecos="Shop", pw_shell="/bin/sh", pw_passwd=password)
    monkeypatch.setattr(app_host.pwd, "getpwnam", lambda _: entry)
    assert app_host.account("roboshop") == {"comment": "Shop", "shell": "/bin/sh", **known}


def test_a_group_is_known_by_its_name() -> None:
    assert app_host.group_exists("root")
    assert not app_host.group_exists("nobody-of-that-name")


@pytest.mark.parametrize(
    ("programs", "answer"),
    [
        (("apt-get", "dpkg-query"), r"installed python3.11-venv\nconfig-files removed\n"),
        (("rpm",), r"installed python3.11-venv\npackage removed is not installed\n"),
    ],
)
def test_packages_that_are_not_installed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: tuple[str, ...], answer: str
) -> None:
    for name in programs:
        (tmp_path / name).write_text(f"#!/bin/sh\nprintf '{answer}'\nexit 1\n")  # as where one of them is unknown
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert app_host.missing_packages(["removed", "python3.11-venv", "unknown"]) == ["removed", "unknown"]


def test_output_that_is_no_text_is_read() -> None:
    assert app_host.run("printf", r"a\377b") == "a\N{REPLACEMENT CHARACTER}b"


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(app_host.CommandError, match=r"`ls /nowhere` failed: .*No such file"):
        app_host.run("ls", "/nowhere")


def test_a_unit_that_can_t_be_asked_has_no_properties(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: str) -> Any:
        raise app_host.CommandError("no systemd here")

    monkeypatch.setattr(app_host, "run", run)
    assert app_host.unit("dispatch", "ActiveState") == {}


def test_a_file_that_is_none_has_no_text(tmp_path: Path) -> None:
    assert app_host.text(tmp_path) == app_host.text(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("systemd 252 (252.38-1~deb12u1)\n+PAM +AUDIT\n", 252),
        ("systemd 257.9\n", 257.9),
        ("systemd\n", float("inf")),
        ("systemd git (v260-rc1)\n", float("inf")),
        ("", float("inf")),
    ],
)
def test_the_version_of_systemd_is_told(monkeypatch: pytest.MonkeyPatch, said: str, version: float) -> None:
    monkeypatch.setattr(app_host, "run", lambda *_: said)
    assert SYSTEMD_VERSION() == version


def test_without_systemd_there_is_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: str) -> str:
        raise FileNotFoundError("systemctl")

    monkeypatch.setattr(app_host, "run", fail)
    assert SYSTEMD_VERSION() == float("inf")
