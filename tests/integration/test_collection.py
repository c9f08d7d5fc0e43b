"""The collection, installed where nothing else is, on hosts that the checkout has provisioned."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import TestLab
from tests.lab.ansible import ROOT, Run
from tests.publishing.collection import NAME, build
from tests.publishing.installed import install

pytestmark = pytest.mark.long


def test_after_the_checkout_has_run_the_collection_changes_nothing(lab: TestLab, tmp_path: Path) -> None:
    settled = lab.playbook("site")
    assert settled.code == 0, settled.output
    installed = install(build(ROOT, ROOT / "dist" / "dispatch.zip", tmp_path / "dist"), tmp_path)
    done = installed.ansible("playbook", "-i", str(lab.inventory), f"{NAME}.site")
    run = Run(done.returncode, done.stdout)
    assert run.code == 0, done.stdout + done.stderr
    assert run.recap.keys() == settled.recap.keys()
    assert run.changed == 0, run.output
