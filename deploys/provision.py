"""The whole runbook as one pyinfra deploy, to be called from a deploy file or from another deploy."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from ansible.utils.helpers import pct_to_int
from pyinfra import config, host, inventory
from pyinfra.api import deploy
from pyinfra.api.exceptions import PyinfraError
from pyinfra.operations import files

from deploys import operations, programs
from deploys.desired import GROUP, DesiredError, Values, load
from deploys.facts import Answer


@deploy("Dispatch")
def dispatch() -> None:
    """Provision Dispatch on the hosts of its group, as the role `dispatch` does.

    The values of all hosts are checked before the first one changes. Raises PyinfraError in the words of the role.
    """
    if GROUP not in host.groups:
        return
    try:
        _provision(_wanted(host.name))
    except DesiredError as error:
        raise PyinfraError(f"{host.name}: {error}") from error


@functools.cache
def _wanted(name: str) -> Values:
    return load().wanted(name, inventory.get_override_data())


def _provision(wanted: Values) -> None:
    _require_one_rollout(wanted["rollout"])
    found = _ask("app_survey", wanted["host"])
    # The host fetches an artifact before anything changes: it verifies the signature, and tells the kind.
    if wanted["artifact"]["url"] and found["steps"]["release"]:
        asked = {name: wanted["artifact"][name] for name in ("source", "signature")}
        asked |= {name: wanted["host"][name] for name in ("signers", "revoked")}
        fetched = _ask("app_fetch", {**_cached(wanted), **asked})
        wanted = {**wanted, "host": {**wanted["host"], **fetched}}
        found = _ask("app_survey", wanted["host"])
    if found["settled"]:
        host.log("Nothing to change")
        return
    for change in found["changes"] if not config.DIFF else found["diff"]:
        host.log(change)

    home = wanted["host"]["home"]
    operations.packages(
        name="Runbook step 1, install the runtime",
        manager=found["runtime"]["manager"],
        missing=found["runtime"]["missing"],
    )
    operations.account(
        name="Runbook step 2, create the user",
        wanted=wanted["host"]["account"],
        found=found["account"],
        home=home["path"],
        group=found["group"],
    )
    operations.directory(name="Runbook step 2, create its directory", wanted=home, unlike=found["home"])
    if found["steps"]["release"]:
        _build(wanted, found)
    if found["steps"]["drain"]:
        operations.drain(
            name="Leave nothing behind where the service consumes now, as asked",
            argv=[str(word) for word in (wanted["cli"], *wanted["host"]["drain"]["command"])],
        )
    _switch(wanted, found)


def _ask(program: str, request: Values) -> Values:
    """What one of the roles' programs answers. Raises DesiredError where it can't, or has a reason to refuse."""
    found = host.get_fact(Answer, _stdin=programs.stdin(program, request))
    if found is None:
        raise DesiredError("this host could not be inspected (see above); python3 and sudo have to work there")
    if "failure" in found:
        raise DesiredError(found["failure"])
    return dict(found)


def _cached(wanted: Values) -> Values:
    """Where the host keeps the artifact until its release is built; the roles' fetch.yml has the same place."""
    name, sha256 = wanted["host"]["name"], wanted["host"]["sha256"]
    return {"name": name, "sha256": sha256, "path": f"/var/cache/{name}-{sha256[:12]}.zip"}


def _build(wanted: Values, found: Values) -> None:
    """Bring the artifact to the host and build its release."""
    artifact, sha256, release = wanted["artifact"], wanted["host"]["sha256"], found["release"]
    zip_file = _cached(wanted)["path"]
    if artifact["url"]:
        files.download(
            name="Runbook step 3, fetch the artifact",
            src=artifact["source"],
            dest=zip_file,
            sha256sum=sha256,
            mode="600",
            temp_dir="/var/cache",  # named here, pyinfra need not ask for one, which a login that prints would garble
        )
    plan = {
        "artifact": zip_file,
        "sha256": sha256,
        "release": release,
        "kind": found["kind"],
        "name": wanted["host"]["name"],
        "interpreter": found["runtime"]["interpreter"],
        "compiler": found["runtime"]["compiler"],
        "go_proxy": wanted["go_proxy"],
        "index_url": wanted["index_url"],
        "ca_bundle": wanted["ca_bundle"],
        "signers": wanted["host"]["signers"],
        "revoked": wanted["host"]["revoked"],
    }
    carried = {} if artifact["url"] else {zip_file: Path(artifact["source"])}
    if carried and wanted["host"]["signers"]:
        carried[f"{zip_file}.sig"] = Path(artifact["signature"])
    operations.role_program(
        name="Runbook steps 3 and 4, unpack the artifact and build the release",
        program="app_build",
        request={"plan": plan, "source": artifact["value"]},
        files=carried,
    )


def _switch(wanted: Values, found: Values) -> None:
    """Switch to what is new, one batch of hosts after another."""
    request = {"wanted": wanted["host"], "release": found["release"], "rebuilt": found["steps"]["release"]}
    check_zip = wanted["check_zips"][found["kind"]]
    carried = {wanted["host"]["kinds"][found["kind"]]["check_zip"]: Path(check_zip)} if check_zip else {}
    for number, batch in host.loop(_batches(wanted["rollout"]["serial"])):
        # A host on which nothing is live yet has nothing to lose, so it goes first and does not wait for the canary.
        mine = host.name in batch if found["serving"] else number == 1
        if found["steps"]["service"] and mine:
            operations.role_program(
                name=f"Runbook steps 5 and 6, switch to what is new, if it works (batch {number})",
                program="app_switching",
                request=request,
                files=carried,
            )


def _require_one_rollout(rollout: Values) -> None:
    """Refuse hosts that disagree on the roll-out, which is one for all of them. Raises DesiredError."""
    if any(_wanted(one.name)["rollout"] != rollout for one in _hosts()):
        raise DesiredError(
            f"Hosts of this run have different values of {GROUP}_serial or {GROUP}_max_fail_percentage, which say how "
            f"one change rolls over all of them. Set each once, for the whole group {GROUP}, or change one group after "
            "another with --limit."
        )


def _hosts() -> list[Any]:
    return [one for one in inventory.get_group(GROUP) if one in inventory.get_active_hosts()]


def _batches(serial: list[str]) -> list[tuple[int, list[str]]]:
    """The hosts' names in the batches that `serial` divides them into, in the order of their turns."""
    left = [one.name for one in _hosts()]
    total = len(left)
    batches: list[tuple[int, list[str]]] = []
    sizes = [pct_to_int(size, total) for size in serial]
    while left:
        size = sizes[min(len(batches), len(sizes) - 1)]
        batches.append((len(batches) + 1, left[:size]))
        left = left[size:]
    return batches
