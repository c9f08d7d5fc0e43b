"""A relabel of the host leaves the home the types that the policy has for /opt."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils import app_comparison, app_host, app_label, app_switching

from tests.unit.roles.hosts import Host, Kept, assert_unchanged


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SELinux's equivalences on a host that has SELinux and, so far, none of them."""
    monkeypatch.setattr(app_label, "SELINUX", tmp_path / "selinux")
    monkeypatch.setattr(app_host, "SELINUX", tmp_path)
    file = tmp_path / "selinux/mls/contexts/files/file_contexts.subs"
    file.parent.mkdir(parents=True)
    (tmp_path / "selinux/config").write_text("SELINUX=enforcing\nSELINUXTYPE=mls\n")
    return file


@pytest.mark.parametrize("before", [None, "", "/srv/www /var/www\n", "/srv/www /var/www"])
def test_a_switch_writes_the_rule_once(host: Host, rules: Path, before: str | None) -> None:
    if before is not None:
        rules.write_text(before)
    for _ in range(2):
        assert not app_switching.switch(host.wanted, host.release("new"), rebuilt=True).failure
    others = [before.strip()] if before else []
    assert rules.read_text().splitlines() == [*others, f"{host.root}/app /opt"]
    assert rules.stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("rules")
def test_a_rule_that_is_missing_needs_no_switch(kept: Kept) -> None:
    said = f"{kept.root}/app: a relabel of SELinux would take its type away"
    assert said in app_comparison.keeping_changes(kept.wanted)
    outcome = kept.keep()
    assert (outcome.failure, outcome.changed) == ("", True)
    assert said not in app_comparison.keeping_changes(kept.wanted)
    assert not kept.keep().changed


def test_a_rule_is_for_where_a_linked_home_leads_to(host: Host, rules: Path) -> None:
    home, volume = host.root / "app", host.root / "volume"
    home.rename(volume)
    home.symlink_to(volume)
    app_label.add(home)
    assert rules.read_text() == f"{volume} /opt\n"
    assert not app_label.missing(home)


@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize("home", ["/opt", "/opt/shop"])
def test_below_opt_the_policy_has_rules(home: str) -> None:
    assert not app_label.missing(Path(home))
    assert app_label.missing(Path("/optics"))


def test_without_selinux_there_is_no_rule(host: Host, rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_host, "SELINUX", host.root / "none")
    assert not host.switch_in_a_process().failure
    assert not rules.exists()


def test_a_rule_that_can_t_be_written_changes_nothing(host: Host, rules: Path) -> None:
    rules.parent.rmdir()
    outcome = host.switch_in_a_process()
    assert_unchanged(outcome)
    assert "the new settings could not be written; nothing that is live has changed" in outcome.failure
    host.assert_live("old")
