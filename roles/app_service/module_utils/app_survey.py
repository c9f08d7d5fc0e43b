"""Says how a whole host differs from what is wanted of it, for every step of the runbook. It only reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils import app_host
from ansible.module_utils.app_comparison import Wanted, as_text, diff, service_changes
from ansible.module_utils.app_releases import directory, live, stands
from ansible.module_utils.runtime_systems import UnsupportedSystemError, this_system


def compare(wanted: Wanted) -> dict[str, Any]:
    """What differs, and which of the runbook's steps have something to do; RETURN in library/app_state.py has the rest.

    Raises UnsupportedSystemError, and OSError for what can't be read.
    """
    runtime = this_system(wanted["systems"])
    home, account = Path(wanted["home"]["path"]), wanted["account"]
    release = directory(home, wanted["sha256"], "python", runtime.interpreter)
    packages = app_host.missing_packages(runtime.packages)
    found_account = app_host.account(account["name"])
    lacks_account = found_account is None or (
        not found_account.get("foreign")
        and any(found_account[name] != account[name] for name in account.keys() - {"name"})
    )
    # The home may be a link to another volume; what counts is the directory that it leads to.
    unlike_home = app_host.differences(home.resolve(), wanted["home"])
    lacks_release = not stands(release, wanted["sha256"])
    service = service_changes(wanted, release)
    current = live(home)
    serving = bool(current) or app_host.unit(wanted["name"], "ActiveState").get("ActiveState") == "active"
    steps = {
        "runtime": bool(packages),
        "account": lacks_account or bool(unlike_home),
        "release": lacks_release,
        "drain": _source_changes(wanted),
        "service": lacks_release or bool(service),
    }
    changes = [f"package {name}: missing" for name in packages]
    changes += [f"user {account['name']}: {'missing' if found_account is None else 'differs'}"] * lacks_account
    changes += [f"{home}: {', '.join(unlike_home)}"] * bool(unlike_home)
    changes += [f"{release}: {'damaged' if release.exists() else 'missing'}"] * lacks_release
    return {
        "changes": changes + service,
        "settled": not any(steps[name] for name in ("runtime", "account", "release", "service")),
        "serving": serving,
        "live": str(current or ""),
        "release": str(release),
        "runtime": {**runtime.as_dict(), "missing": packages},
        "account": found_account,
        "group": app_host.group_exists(account["name"]),
        "home": unlike_home,
        "steps": steps,
    }


def _source_changes(wanted: Wanted) -> bool:
    """Whether a drain is wanted and one of its settings is about to change, which moves the service elsewhere."""
    drain = wanted["drain"]
    if not drain:
        return False
    file = wanted["files"]["environment"]
    before, after = app_host.text(Path(file["path"])).splitlines(), file["content"].splitlines()
    moves = [line for line in before if line.partition("=")[0] in drain["settings"]]
    return any(line not in after for line in moves)


def main(wanted: Mapping[str, Any]) -> int:
    """Print as JSON what was found, with a diff, or why that failed; return the exit code."""
    try:
        found = compare(wanted)
        found["diff"] = as_text(diff(wanted, Path(found["release"])))
    except (UnsupportedSystemError, OSError) as error:
        found = {"failure": str(error)}
    print(json.dumps(found))
    return 0
