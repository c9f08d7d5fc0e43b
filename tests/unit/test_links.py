"""The links in the documents lead somewhere. Nothing asks another machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lab.ansible import ROOT
from tests.publishing.collection import SKELETON
from tests.publishing.links import broken


def documents() -> list[Path]:
    """The checkout's documents; the collection's own are read where it is installed."""
    done = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.splitlines() if SKELETON not in (ROOT / name).parents]


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_or_a_heading(document: Path) -> None:
    assert list(broken(document, ROOT)) == []


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("there.md", []),
        ("there.md#what-it-does-1", []),
        ("#a-heading-with-code--dash", []),
        ("there", []),
        ("https://example.com/no#such", []),
        ("gone.md", ["gone.md leads to no file"]),
        ("there.md#gone", ["there.md#gone leads to no heading"]),
        ("there#what-it-does", ["there#what-it-does leads to no heading"]),
        ("#gone", ["#gone leads to no heading"]),
        ("../outside.md", ["../outside.md leads to no file"]),
        ("http://example.com", ["http://example.com is not by https"]),
    ],
)
def test_a_link_that_leads_nowhere_is_told(tmp_path: Path, link: str, said: list[str]) -> None:
    top = tmp_path / "top"
    (top / "there").mkdir(parents=True)
    (tmp_path / "outside.md").write_text("")
    (top / "there.md").write_text("# What it does\n\n## What it does\n")
    (top / "document.md").write_text(f"# A heading, with `code` — dash!\n\n| a |\n|---|\n| [x]({link}) |\n")
    assert list(broken(top / "document.md", top)) == said
