"""A host on which there is nothing to switch is mended without a switch."""

from __future__ import annotations

import pytest
from ansible.module_utils import app_host, app_switching

from tests.unit.roles.hosts import Kept, assert_restored


def test_a_host_that_is_as_wanted_is_left_alone(kept: Kept) -> None:
    kept.restarted.clear()
    assert kept.keep() == app_switching.Outcome()
    assert kept.commands == []
    assert kept.restarted == []


def test_a_release_that_was_built_anew_is_switched_to(kept: Kept) -> None:
    kept.restarted.clear()
    outcome = app_switching._switch_alone(kept.wanted, kept.release("new"), True)
    assert outcome == app_switching.Outcome(changed=True)
    assert kept.restarted == ["new"]


def test_a_switch_that_was_cut_short_is_made_again(kept: Kept) -> None:
    kept.restarted.clear()
    kept.service.backup.mkdir()
    assert kept.keep() == app_switching.Outcome(changed=True)
    assert kept.restarted == ["new"]


def test_directories_are_mended_without_a_switch(kept: Kept) -> None:
    kept.restarted.clear()
    kept.service.configuration.chmod(0o777)
    (kept.service.configuration / "credentials").chmod(0o755)
    assert kept.keep() == app_switching.Outcome(changed=True)
    assert kept.service.configuration.stat().st_mode & 0o777 == 0o755
    assert (kept.service.configuration / "credentials").stat().st_mode & 0o777 == 0o700
    assert kept.restarted == []


def test_a_service_is_enabled_and_started_without_a_switch(kept: Kept) -> None:
    kept.is_enabled, kept.states = False, ["inactive", "activating", "active"]
    assert kept.keep() == app_switching.Outcome(changed=True)
    assert kept.commands == [("systemctl", "enable", "dispatch"), ("systemctl", "start", "--no-block", "dispatch")]


def test_a_service_that_is_starting_is_waited_for(kept: Kept) -> None:
    kept.states = ["activating", "activating", "active"]
    assert kept.keep() == app_switching.Outcome()
    assert kept.commands == []


def test_a_service_that_does_not_become_ready_is_told_with_its_journal(kept: Kept) -> None:
    kept.wanted["start_seconds"], kept.answer = 0, "http://127.0.0.1/readyz answers 503"
    outcome = kept.keep()
    assert not outcome.changed
    assert outcome.failure == (
        "dispatch is not ready after 0 s: http://127.0.0.1/readyz answers 503. The end of "
        "`journalctl -u dispatch -e`:\n\nthe journal\n"
    )


def test_in_an_image_a_service_is_enabled_and_not_started(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_host, "BOOTED", kept.root / "none")
    kept.is_enabled, kept.states = False, ["inactive"]
    assert kept.keep() == app_switching.Outcome(changed=True)
    assert kept.commands == [("systemctl", "enable", "dispatch")]
    assert kept.keep() == app_switching.Outcome()


@pytest.mark.parametrize("name", ["previous", "previous.half", "next.spare"])
def test_a_saved_state_that_others_could_have_put_there_is_dropped(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    theirs = kept.service.configuration / name
    theirs.mkdir()
    (theirs / "unit").write_text("theirs")
    kept.service.configuration.chmod(0o777)
    kept.wanted["check"] = "check"
    monkeypatch.setattr(app_switching, "failed_check", lambda *_: "no such host")
    assert kept.keep() == app_switching.Outcome(changed=True)
    kept.assert_live("new")
    assert kept.service.configuration.stat().st_mode & 0o777 == 0o755


def test_a_saved_state_that_root_alone_could_have_put_there_is_put_back(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.service.backup.mkdir()
    (kept.service.backup / "unit").write_text("of the switch before")
    kept.wanted["check"] = "check"
    monkeypatch.setattr(app_switching, "failed_check", lambda *_: "no such host")
    assert_restored(kept.keep())
    assert kept.live["unit"].read_text() == "of the switch before"
