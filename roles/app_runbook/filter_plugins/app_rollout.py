"""Works out, on the controller, how a change or a rollback goes over a fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

Standing = Mapping[str, Any]


def rollout(found: list[Mapping[str, Any]]) -> dict[str, Any]:
    """How a change goes over the hosts that `found` describes: a play's ``serial`` and ``max_fail_percentage``.

    Where nothing is live yet, all hosts go at once, because a canary would have nothing to protect. ``disagree`` says
    whether the hosts' variables ask for more than one roll-out.
    """
    plans = [one["rollout"] for one in found]
    careful = any(one["serving"] for one in found)
    return {
        "serial": plans[0]["serial"] if careful else ["100%"],
        "max_fail_percentage": plans[0]["max_fail_percentage"],
        "disagree": any(plan != plans[0] for plan in plans),
    }


def target(standing: Standing, asked: str) -> str:
    """The id of the release that a host is to go back to, or "" if the host has none."""
    return asked or str(standing["previous"])


def rollback_fault(fleet: Mapping[str, Standing], asked: str, name: str) -> str:
    """The reason why the hosts of a play can't all go back to one release; "" if they can.

    `fleet` has, for each host, what app_release_info has found; `asked` is the release that the user named, or "".
    """
    standing = {host: [release["id"] for release in one["releases"]] for host, one in fleet.items()}
    lacking = [host for host, one in fleet.items() if target(one, asked) not in standing[host]]
    said = ""
    if not asked and any(len({str(one[kind]) for one in fleet.values()}) > 1 for kind in ("live", "previous")):
        said = f"{name}_release is not set, and the hosts differ in the release that is live, or in the one before it."
    elif lacking and asked:
        said = f"The release {name}_release = {asked} does not stand on {', '.join(lacking)}."
    elif lacking:
        said = (
            f"A release that was live before, and is older than the live one, does not stand on {', '.join(lacking)}."
        )
    if not said:
        return ""
    hosts = "; ".join(
        f"on {host} {one['live'] or 'nothing'} is live, and of those that have been there stand: "
        f"{', '.join(standing[host]) or 'none'}"
        for host, one in fleet.items()
    )
    return (
        f"{said} Set {name}_release to one that stands on all of them (-e {name}_release=<id>), or run "
        f"playbooks/{name}.yml with the artifact you want. Nothing has changed; {hosts}."
    )


def history(standing: Standing, name: str) -> list[str]:
    """One line for each release of a host that has been live, the most recent first, and one for what it is made of."""
    lines = []
    for release in standing["releases"]:
        when = datetime.fromtimestamp(float(release["activated"]), tz=timezone.utc)
        what = "  live since " if release["id"] == standing["live"] else "  was made live "
        lines.append(f"{release['id']}{what}{when:%Y-%m-%d %H:%M:%S} UTC")
        if release.get("version"):
            commit = f" of commit {release['commit']}" if release["commit"] else ""
            held = ", ".join(f"{component} {version}" for component, version in release["components"].items())
            lines.append(f"  {release['version']}{commit}{f', with {held}' if held else ''}")
    return lines or [f"{name.capitalize()} has never been live on this host."]


class FilterModule:
    """The filters of this file, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "app_rollout": rollout,
            "app_rollback_fault": rollback_fault,
            "app_rollback_target": target,
            "app_history": history,
        }
