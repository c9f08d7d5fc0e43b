"""Two services of one host don't share a home, in which each would switch and remove the other's releases."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils import app_comparison, app_neighbours, app_survey

from tests.unit.roles.test_survey import Host


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of units, with that of the service payment, whose home is /app."""
    monkeypatch.setattr(app_neighbours, "UNITS", tmp_path)
    unit = f"{app_comparison.OURS}; …\n[Service]\nWorkingDirectory=/app/current\n"
    (tmp_path / "payment.service").write_text(unit)
    return tmp_path


def test_a_home_in_which_another_service_lives_is_refused(units: Path) -> None:
    with pytest.raises(app_neighbours.SharedHomeError) as refused:
        app_neighbours.require_own_home("dispatch", "/app")
    assert "the home of dispatch is /app, where the service payment lives on this host" in str(refused.value)
    assert "such as dispatch_home: /srv/dispatch" in str(refused.value)
    assert units.is_dir()


@pytest.mark.parametrize(("name", "home"), [("payment", "/app"), ("dispatch", "/app2"), ("dispatch", "/srv")])
def test_a_home_of_one_s_own_is_accepted(units: Path, name: str, home: str) -> None:
    (units / "gone.service").symlink_to(units / "nowhere")
    (units / "other.service").write_text(f"[Service]\nWorkingDirectory={home}/current\n")  # of somebody else's making
    app_neighbours.require_own_home(name, home)


def test_a_host_is_asked_for_it_first(units: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    host = Host(tmp_path_factory.mktemp("host"))
    app_survey.compare(host.wanted)
    home = host.wanted["home"]["path"]
    (units / "payment.service").write_text(f"{app_comparison.OURS}\nWorkingDirectory={home}/current\n")
    with pytest.raises(app_neighbours.SharedHomeError):
        app_survey.compare(host.wanted)
