"""Lets tests import what the roles bring: their module_utils as modules find them, their filter plugins by name."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils
import pytest

ROLES = Path(__file__).resolve().parents[3] / "roles"

ansible.module_utils.__path__.extend(str(path) for path in sorted(ROLES.glob("*/module_utils")))
sys.path.extend(str(path) for path in sorted(ROLES.glob("*/filter_*")))

from ansible.module_utils import app_host  # noqa: E402 - only now can it be found

from tests.unit.roles.hosts import Host, Kept  # noqa: E402 - as above


@pytest.fixture(autouse=True)
def _any_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the version of this machine's systemd."""
    monkeypatch.setattr(app_host, "systemd_version", lambda: 255.0)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(tmp_path, monkeypatch)
