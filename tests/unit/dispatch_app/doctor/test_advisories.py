"""The doctor warns of a release that holds a version which a given advisory lists, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dispatch_app.doctor import advisories
from dispatch_app.doctor.table import AREAS, OK


def record(name: str = "pika", ecosystem: str = "PyPI", **more: Any) -> dict[str, Any]:
    affected = {"package": {"name": name, "ecosystem": ecosystem}, "versions": ["1.4.3", "1.4.4"]}
    return {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "affected": [affected], **more}


def warned(*records: dict[str, Any], **components: str) -> list[str]:
    """What the doctor has seen, of a release with these components."""
    report: dict[str, Any] = {
        "findings": [], "checks": [], "exit_code": 0, "healthy": True, "components": components,
        "areas": dict.fromkeys(AREAS, OK),
    }  # fmt: skip
    advisories.warn(report, list(records))
    assert (report["healthy"], report["exit_code"]) == ((False, 1) if report["findings"] else (True, 0))
    return [finding["evidence"] for finding in report["findings"]]


def test_a_version_that_is_listed_is_warned_of() -> None:
    assert warned(record(), pika="1.4.4") == ["pika 1.4.4: PYSEC-2026-1, CVE-2026-1"]
    assert warned(record("Prometheus-Client"), prometheus_client="1.4.3") == [
        "prometheus_client 1.4.3: PYSEC-2026-1, CVE-2026-1"
    ]
    assert warned(record(), record(id="B", aliases=[]), pika="1.4.4") == [
        "pika 1.4.4: B; pika 1.4.4: PYSEC-2026-1, CVE-2026-1"
    ]


def test_nothing_else_is_warned_of() -> None:
    assert warned(record(), pika="1.4.5") == []
    assert warned(record(), other="1.4.4") == []
    assert warned(record(ecosystem="npm"), pika="1.4.4") == []
    assert warned(record(withdrawn="2026-11-01T00:00:00Z"), pika="1.4.4") == []
    assert warned(pika="1.4.4") == []


def test_an_advisory_that_lists_no_versions_is_left_to_the_reader() -> None:
    ranges = [{"package": {"name": "pika", "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": []}]}]
    (seen,) = warned(record(affected=ranges), pika="1.4.4")
    assert seen.endswith("lists no versions, so compare its ranges yourself")


@pytest.mark.parametrize("text", ["", "{", "1", "[1]", '{"id": "x"}', '[{"affected": []}]'])
def test_a_file_that_holds_no_advisories_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(advisories.AdvisoriesError, match=r"a\.json"):
        advisories.read(tmp_path / "a.json")


def test_a_file_holds_one_advisory_or_several(tmp_path: Path) -> None:
    for content in (record(), [record(), record()]):
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert advisories.read(tmp_path / "a.json")[0]["id"] == "PYSEC-2026-1"
