import json
import re

from dispatch_app import __version__
from tests.lab.ansible import ROOT
from tests.publishing.controller import sbom


def test_the_controller_s_sbom_lists_what_its_lock_pins() -> None:
    written = sbom(ROOT)
    listed = json.loads(written)
    own = listed["metadata"]["component"]
    assert (own["type"], own["name"], own["version"]) == ("application", "roboshop-dispatch", __version__)
    pinned = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert [(one["name"], one["version"]) for one in listed["components"]] == pinned
    assert sbom(ROOT) == written
