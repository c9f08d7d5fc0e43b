"""`make audit` tells packages apart that are vulnerable, of which nothing bad is known, and that nobody asked about."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests import audit

# An answer to a query for one version, as the OSV schema has it.
ADVISORY = {
    "id": "PYSEC-2026-1",
    "aliases": ["CVE-2026-1"],
    "published": "2026-11-01T00:00:00Z",
    "summary": "planted",
    "affected": [
        {
            "package": {"name": "pika", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.4.5"}]}],
        }
    ],
}
PINS = "".join(f"{name}=={version} --hash=sha256:{'a' * 64}\n" for name, version in (("pika", "1.4.4"), ("other", "1")))


class Advisories(HTTPServer):
    """A service of advisories that knows of one vulnerable package, or of none."""

    vulnerable = ""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Advisories)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = {"vulns": [ADVISORY]} if asked["package"]["name"] == self.server.vulnerable else {}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def advisories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Advisories]:
    with Advisories(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_port}/v1/query")
        monkeypatch.setattr(audit, "ROOT", tmp_path)
        monkeypatch.delenv("CI", raising=False)
        (tmp_path / "pins.txt").write_text(PINS)
        yield server
        server.shutdown()


def test_a_planted_advisory_fails_the_audit(advisories: Advisories, capsys: pytest.CaptureFixture[str]) -> None:
    advisories.vulnerable = "pika"
    assert audit.main(("pins.txt",)) == 1
    assert capsys.readouterr().out == (
        "pins.txt: VULNERABLE, 2 packages audited\n  pika 1.4.4: PYSEC-2026-1, CVE-2026-1 (mended in 1.4.5)\n"
    )


@pytest.mark.usefixtures("advisories")
def test_packages_of_which_nothing_bad_is_known_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(("pins.txt",)) == 0
    assert capsys.readouterr().out == "pins.txt: clean, 2 packages audited\n"


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
@pytest.mark.usefixtures("advisories")
def test_advisories_that_can_t_be_reached_are_no_good_news(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ci: str, code: int
) -> None:
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:9/v1/query")
    monkeypatch.setenv("CI", ci)
    assert audit.main(("pins.txt",)) == code
    said = capsys.readouterr().out
    assert said.startswith("pins.txt: NOT AUDITED (")
    assert "clean" not in said


def test_what_pip_audit_has_skipped_was_not_audited() -> None:
    skipped = {"name": "pika", "skip_reason": "Dependency not found on PyPI"}
    well = {"name": "other", "version": "1", "vulns": []}
    assert audit.judge([well, skipped]).not_audited == "Dependency not found on PyPI"
    assert audit.judge([]).not_audited
    assert audit.judge([well]) == audit.Audit(1)


def test_every_lock_is_audited() -> None:
    files = [file for pattern in ("requirements*.txt", "dispatch_app/*.txt") for file in audit.ROOT.glob(pattern)]
    pinned = {file.relative_to(audit.ROOT).as_posix() for file in files}
    assert pinned - {"requirements.txt"} == {*audit.LOCKS}
    names = [{line.split("==")[0] for line in (audit.ROOT / file).read_text().splitlines() if line[:1].isalnum()}
             for file in ("requirements.txt", "requirements-dev.txt")]  # fmt: skip
    assert names[0] <= names[1]
