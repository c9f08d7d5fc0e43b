"""The collection of this checkout."""

from __future__ import annotations

import pytest

from tests.lab.ansible import ROOT
from tests.publishing.collection import build
from tests.publishing.installed import Installed, install

ARTIFACT = ROOT / "dist" / "dispatch.zip"


@pytest.fixture(scope="package")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The collection, installed where nothing else is."""
    root = tmp_path_factory.mktemp("collection")
    return install(build(ROOT, ARTIFACT, root / "dist"), root)
