"""A switch is a process that outlives who asked for it, one at a time on a host."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ansible.module_utils import app_switching

from tests.unit.roles.hosts import Host, assert_restored, assert_unchanged


@contextmanager
def switching_in_the_middle(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Callable[[], None]]]:
    """A session of its own that switches and waits for its service; yields its id, and what lets it go on and end."""
    begun, begin = os.pipe()
    go_on, let = os.pipe()

    def restart(*_: Any) -> None:
        os.write(begin, b"x")
        os.read(go_on, 1)

    def end() -> None:
        os.write(let, b"x")
        # The pipe ends when all who could write into it have ended.
        assert os.read(begun, 1) == b""

    monkeypatch.setattr(app_switching, "restart", restart)
    player = os.fork()
    if not player:
        os.setsid()
        os.close(let)
        host.switch_in_a_process()
        os._exit(0)
    os.close(begin)
    try:
        assert os.read(begun, 1) == b"x"
        yield player, end
    finally:
        for descriptor in (begun, go_on, let):
            os.close(descriptor)


def test_a_switch_ends_on_its_own_where_who_asked_for_it_is_killed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with switching_in_the_middle(host, monkeypatch) as (player, end):
        assert host.service.backup.is_dir()
        os.killpg(player, signal.SIGKILL)  # as sudo(8) does where the connection goes away
        assert os.waitpid(player, 0)[1] == signal.SIGKILL
        end()
    host.assert_live("new")
    assert (host.release("new") / ".activated").exists()


def test_of_two_switches_at_once_the_second_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with switching_in_the_middle(host, monkeypatch) as (player, end):
        outcome = host.switch_in_a_process()
        end()
        os.waitpid(player, 0)
    assert_unchanged(outcome)
    assert outcome.failure == (
        "another play is switching dispatch on this host; wait for it to end, then run this one again"
    )
    host.assert_live("new")


def test_what_a_switch_s_own_process_says_is_heard(host: Host) -> None:
    assert host.switch_in_a_process() == app_switching.Outcome(changed=True)
    host.assert_live("new")
    assert host.restarted == []  # that was another process


def test_a_switch_that_was_killed_is_told_of(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_switching, "restart", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    outcome = host.switch_in_a_process()
    assert_restored(outcome)
    assert "was ended from outside (status 9)" in outcome.failure
    assert host.service.backup.is_dir()


def test_an_error_that_nobody_foresaw_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(*_: Any) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(app_switching, "stage", stage)
    assert "RuntimeError('unforeseen')" in host.switch_in_a_process().failure
    host.assert_live("old")


def test_a_request_is_answered_by_an_exit_code(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    request = {"wanted": host.document(), "release": str(host.release("new")), "rebuilt": False}
    assert app_switching.main(request) == 0
    host.service.current.unlink()
    host.service.current.touch()
    assert app_switching.main(request) == 1
    assert "has to be a symbolic link" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_is_no_link_is_refused(host: Host, kind: str) -> None:
    current = host.service.current
    current.unlink()
    current.mkdir() if kind == "directory" else current.touch()
    outcome = host.switch_in_a_process()
    assert_unchanged(outcome)
    assert outcome.failure == (
        f"{current} is a {kind}, and has to be a symbolic link; move it away, then run the play again"
    )
    assert current.exists()
