"""The fix that makes a venv anew runs as root, so it runs no code of the release, and none that others can change."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dispatch_app.doctor import host
from dispatch_app.doctor.case import Case
from dispatch_app.doctor.checks import fixes

BACKEND = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A release below a name that a shell would split."""
    made = tmp_path / "a b"
    (made / "wheels").mkdir(parents=True)
    (made / "requirements.txt").touch()
    monkeypatch.setattr(host.Host, "release", made)
    monkeypatch.setattr(host.Host, "new_interpreter", sys.executable)
    monkeypatch.setattr(fixes, "RESTART", "true")
    return made


def test_it_runs_no_code_of_the_release(release: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'a').write(__file__)\n"
    for name in ("venv.py", "pip.py", "shutil.py"):
        (release / name).write_text(code)
    (release / "requirements.txt").write_text("thing==1.0\n")
    with zipfile.ZipFile(release / "wheels/thing-1.0.zip", "w") as archive:
        archive.writestr("thing-1.0/backend.py", code)
        archive.writestr("thing-1.0/pyproject.toml", BACKEND)
    command = fixes.rebuild(Case(), "", "").command
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (release / "venv/bin/python").exists()
    assert "No matching distribution found for thing==1.0" in done.stderr
    assert not ran.exists(), ran.read_text()


@pytest.mark.parametrize("part", [".", "requirements.txt", "installer", "installer/pip-1-py3-none-any.whl", ".."])
def test_where_others_can_write_the_play_does_it(release: Path, part: str) -> None:
    (release / "installer").mkdir()
    (release / "installer/pip-1-py3-none-any.whl").touch()
    assert fixes.rebuild(Case(), "", "").command != fixes.PROVISION
    (release / part).chmod(0o777)
    assert fixes.rebuild(Case(), "", "").command == fixes.PROVISION
