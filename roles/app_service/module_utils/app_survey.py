"""Says how a whole host differs from what is wanted of it, for every step of the runbook. It only reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.module_utils import app_host, go_version
from ansible.module_utils.app_comparison import UnfitError, Wanted, as_text, diff, of_kind, service_changes
from ansible.module_utils.app_kind import INSTALLER, kind_of
from ansible.module_utils.app_neighbours import SharedHomeError, require_own_home
from ansible.module_utils.app_releases import ID_DIGITS, directory, live, stands, verified
from ansible.module_utils.app_signature import Signers
from ansible.module_utils.go_version import GoVersionError
from ansible.module_utils.runtime_systems import UnsupportedSystemError, this_system

# What `compare` raises where it can't answer; the message is for the user.
REFUSALS = (UnsupportedSystemError, SharedHomeError, GoVersionError, UnfitError, OSError)


def compare(wanted: Wanted) -> dict[str, Any]:
    """What differs, and which of the runbook's steps have something to do; RETURN in library/app_state.py has the rest.

    Raises one of REFUSALS; OSError is for what can't be read.
    """
    require_own_home(wanted["name"], wanted["home"]["path"])
    home, account = Path(wanted["home"]["path"]), wanted["account"]
    kind = wanted["kind"] or _standing_kind(home, wanted["sha256"])
    if not kind:
        return _unfetched(wanted)
    wanted = of_kind(wanted, kind)
    runtime = this_system(wanted["systems"], kind, wanted["installer"] or _carries_pip(home, wanted["sha256"]))
    runtime = replace(runtime, packages=[*runtime.packages, *wanted["packages"].get(runtime.manager, [])])
    if kind == "go" and go_version.older(runtime.version, wanted["go"]):
        raise UnfitError(f"{wanted['name']}_artifact: {go_version.too_old(runtime.version, wanted['go'])}.")
    release = directory(home, wanted["sha256"], kind, runtime.version or runtime.interpreter)
    packages = app_host.missing_packages(runtime.packages) if runtime.packages else []
    found_account = app_host.account(account["name"])
    lacks_account = found_account is None or (
        not found_account.get("foreign")
        and any(found_account[name] != account[name] for name in account.keys() - {"name"})
    )
    # The home may be a link to another volume; what counts is the directory that it leads to.
    unlike_home = app_host.differences(home.resolve(), wanted["home"])
    lacks_release = not stands(release, wanted["sha256"])
    signers = Signers(wanted["name"], wanted["signers"], wanted["revoked"])
    unverified = not lacks_release and bool(signers) and verified(release) != signers.digest()
    service = service_changes(wanted, release)
    current = live(home)
    steps = {
        "runtime": bool(packages),
        "account": lacks_account or bool(unlike_home),
        "release": lacks_release or unverified,
        "drain": _source_changes(wanted),
        "service": lacks_release or bool(service),
    }
    changes = [f"package {name}: missing" for name in packages]
    changes += [f"user {account['name']}: {'missing' if found_account is None else 'differs'}"] * lacks_account
    changes += [f"{home}: {', '.join(unlike_home)}"] * bool(unlike_home)
    changes += [f"{release}: {'damaged' if release.exists() else 'missing'}"] * lacks_release
    changes += [f"{release}: its artifact's signature has yet to be verified by {signers.variable}"] * unverified
    return {
        "changes": changes + service,
        "settled": not any(steps[name] for name in ("runtime", "account", "release", "service")),
        "serving": _serving(wanted, current),
        "kind": kind,
        "live": str(current or ""),
        "release": str(release),
        "runtime": {**runtime.as_dict(), "missing": packages},
        "account": found_account,
        "group": app_host.group_exists(account["name"]),
        "home": unlike_home,
        "steps": steps,
    }


def _standing_kind(home: Path, sha256: str) -> str:
    """The kind of the artifact, by the name of a release of it; "" where it has to be fetched to tell."""
    return next((kind_of(release.name) for release in _releases_of(home, sha256)), "")


def _carries_pip(home: Path, sha256: str) -> bool:
    """Whether the artifact carries pip, by a release of it that stands; the controller can't tell of a URL."""
    return any(any(release.glob(INSTALLER)) for release in _releases_of(home, sha256))


def _releases_of(home: Path, sha256: str) -> list[Path]:
    """The releases of an artifact that stand; each runtime has one of its own."""
    return sorted((home / "releases").glob(f"{sha256[:ID_DIGITS]}-*"))


def _unfetched(wanted: Wanted) -> dict[str, Any]:
    """The answer where the artifact has yet to be fetched to tell its kind, by which the rest can be told."""
    current = live(Path(wanted["home"]["path"]))
    steps = dict.fromkeys(("runtime", "account", "release", "drain", "service"), False)
    return {
        "changes": ["the artifact: to be fetched"],
        "settled": False,
        "serving": _serving(wanted, current),
        "kind": "",
        "live": str(current or ""),
        "release": "",
        "runtime": {},
        "account": None,
        "group": False,
        "home": [],
        "steps": {**steps, "release": True},
    }


def _serving(wanted: Wanted, current: Path | None) -> bool:
    return bool(current) or app_host.unit(wanted["name"], "ActiveState").get("ActiveState") == "active"


def _source_changes(wanted: Wanted) -> bool:
    """Whether a drain is wanted and one of its settings is about to change, which moves the service elsewhere.

    Raises UnfitError where the live release has no command to drain with.
    """
    drain = wanted["drain"]
    if not drain:
        return False
    file = wanted["files"]["environment"]
    before, after = app_host.text(Path(file["path"])).splitlines(), file["content"].splitlines()
    moves = [line for line in before if line.partition("=")[0] in drain["settings"]]
    if not any(line not in after for line in moves):
        return False
    current = live(Path(wanted["home"]["path"]))
    before_it = wanted["kinds"].get(kind_of(current.name), {}) if current else {}
    if current and "command" not in before_it.get("files", {}):
        raise UnfitError(
            f"{wanted['name']} is to be drained before it moves, but its live release, {current.name}, has no command "
            "for that. Switch the drain off, and see by other means that nothing is left where it consumes now."
        )
    return True


def main(wanted: Mapping[str, Any]) -> int:
    """Print as JSON what was found, with a diff, or why that failed; return the exit code."""
    try:
        found = compare(wanted)
        found["diff"] = as_text(diff(of_kind(wanted, found["kind"]), Path(found["release"]))) if found["kind"] else []
    except REFUSALS as error:
        found = {"failure": str(error)}
    print(json.dumps(found))
    return 0
