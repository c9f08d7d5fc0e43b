"""What the doctor and the roles have to agree on, though each has to say it for itself."""

from __future__ import annotations

import re
from pathlib import Path

from dispatch_app.doctor import host, table

ROOT = Path(__file__).resolve().parents[4]
ROLES = ROOT / "roles"


def test_the_unit_s_first_line_is_what_the_doctor_knows_it_by() -> None:
    files = {path.name: path.read_text() for path in (ROOT / "templates").glob("app.*.j2")}
    assert files["app.service.j2"].startswith(host.OURS)
    texts = [text for text in files.values() if "Written by" in text]
    assert len(texts) >= 3
    assert all(host.OURS in text for text in texts)


def test_names_and_places_are_the_roles() -> None:
    dispatch = (ROLES / "dispatch/vars/main.yml").read_text()
    for key, value in (("name", table.NAME), ("user", table.USER), ("home", table.HOME)):
        assert re.search(rf"^__dispatch_{key}: {value}$", dispatch, re.MULTILINE), key
    places = (ROLES / "app_service/vars/main.yml").read_text()
    for place in (host.UNIT, host.CONFIGURATION):
        assert f'"{str(place).replace(table.NAME, "{{ app_service_name }}")}"' in places


def test_the_marks_of_a_release_are_those_of_the_role_that_makes_it() -> None:
    module, script = ROLES / "app_release/module_utils/app_releases.py", ROLES / "app_release/files/build.sh"
    if module.exists():
        text = module.read_text()
        marks = dict(re.findall(r'^(COMPLETE|ACTIVATED) = "(.*)"$', text, re.MULTILINE))
        assert marks == {"COMPLETE": table.COMPLETE, "ACTIVATED": table.ACTIVATED}
    else:
        text = script.read_text()
        assert f'"$release.damaged/{table.ACTIVATED}" {table.ACTIVATED}' in text
        assert f"mv {table.COMPLETE}.new {table.COMPLETE}\n" in text
