"""``python -m tests.publishing``: what ``make collection``, ``make release`` and ``make sbom`` call."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from dispatch_app import __version__
from tests.lab.ansible import ROOT
from tests.publishing.agreement import faults
from tests.publishing.collection import CollectionError, archive_name, build
from tests.publishing.controller import sbom


def collection(artifact: Path) -> int:
    """Build the collection beside the artifact that it carries."""
    try:
        archive = build(ROOT, artifact, artifact.parent)
    except CollectionError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    content = archive.read_bytes()
    print(f"{archive} {len(content)} bytes sha256 {hashlib.sha256(content).hexdigest()}")
    return 0


def check(artifact: Path, tag: str) -> int:
    """Say what keeps this checkout from being released, or how to release it."""
    found = faults(ROOT, artifact, artifact.parent / archive_name(), tag)
    for fault in found:
        print(f"failed: {fault}", file=sys.stderr)
    if not found:
        print(f"Tree, version, changelog, artifact and collection agree: {__version__}.")
        print(f"Its tag, from which CI releases it: git tag --annotate v{__version__} --message {__version__}")
    return 1 if found else 0


def main(argv: list[str]) -> int:
    """Run one of the commands; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.publishing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("collection", help="build the Ansible collection beside the artifact")
    checking = commands.add_parser("check", help="check that all that is to be released agrees")
    for command in (building, checking):
        command.add_argument("artifact", type=Path, help="the artifact, such as dist/dispatch.zip")
    listing = commands.add_parser("sbom", help="write what the controller's venv is made of")
    listing.add_argument("document", type=Path, help="the file to write, such as dist/controller.cdx.json")
    checking.add_argument("--tag", default="", help="the tag that is to be released, such as v1.0.0")
    args = parser.parse_args(argv)
    if args.command == "sbom":
        args.document.write_text(sbom(ROOT))
        return 0
    return collection(args.artifact) if args.command == "collection" else check(args.artifact, args.tag)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
