"""The whole runbook as one pyinfra deploy, to be called from a deploy file or from another deploy."""

from __future__ import annotations

import difflib
import functools
import json
from pathlib import Path
from typing import Any

from ansible.utils.helpers import pct_to_int
from pyinfra import config, host, inventory
from pyinfra.api import deploy
from pyinfra.api.exceptions import PyinfraError

from deploys import operations
from deploys.facts import Inspection, Unseen
from deploys.project import GROUP, OS_RELEASE, ProjectError, Target, Values, load


@deploy("Dispatch")
def dispatch() -> None:
    """Provision Dispatch on the hosts of its group, as the role `dispatch` does.

    Every value of every host is checked before the first host changes. Raises PyinfraError in the words of the role.
    """
    if GROUP not in host.groups:
        return
    try:
        _provision(load().host(host.name, inventory.get_override_data()))
    except ProjectError as error:
        raise PyinfraError(f"{host.name}: {error}") from error


def _provision(target: Target) -> None:
    target.check_settings()
    if len(_serials()) > 1:
        raise ProjectError(target.value("dispatch", "__dispatch_rollouts_differ"))
    systems = target.value("python_runtime", "python_runtime_systems").values()
    # Which of them the host has is not known yet.
    packages = sorted({name for system in systems for name in system.get("packages", [])})
    question = target.value(
        "app_service",
        "__app_service_question",
        dispatch_service_steps=["compare"],
        python_runtime_packages=packages,
    )
    files = target.value("app_service", "__app_service_files")
    public = {file["dest"]: question["paths"][file["dest"]]["content"] for file in files}
    question["texts"] += [OS_RELEASE, *public]
    found = host.get_fact(Inspection, _stdin=Unseen(json.dumps(question) + "\n"))
    if found is None:
        raise ProjectError("this host could not be inspected (see above); python3 and sudo have to work there")
    target.check(found)
    if target.value("dispatch", "__dispatch_settled"):
        host.log("Nothing to change")
        return

    (account,) = target.arguments("app_account", "Create the user", __app_account_exists=False)
    (home,) = target.arguments("app_account", "Create the directory, which root owns")
    operations.packages(
        name="Runbook step 1, install the runtime",
        names=target.value("python_runtime", "python_runtime_packages"),
        manager=target.value("python_runtime", "python_runtime_manager"),
        installed=found["packages"],
    )
    operations.account(name="Runbook step 2, create the user", wanted=account, found=found["account"])
    operations.directory(name="Runbook step 2, create its directory", wanted=home, unlike=found["paths"][home["path"]])
    path = target.value("app_release", "__app_release_directory")
    operations.release(
        name="Runbook steps 3 and 4, unpack the artifact and build the release",
        stands=path in found["complete"],
        plan=lambda: _build(target, home["path"]),
    )
    if target.value("dispatch", "__dispatch_drains"):
        step = "Leave no order behind on the RabbitMQ that was, as asked"
        (drain,) = target.arguments("dispatch", step)
        operations.drain(name=step, argv=[str(word) for word in drain["argv"]])

    differs = target.value("app_service", "__app_service_differs")
    _show(found, public, path)
    fresh = not target.value("dispatch", "__dispatch_serves")  # nothing to be careful with
    for number, batch in host.loop(_batches(target)):
        if (number == 1) if fresh else (host.name in batch):
            operations.activation(
                name=f"Runbook steps 5 and 6, switch to what is new, if it works (batch {number})",
                differs=differs,
                plan=lambda: _activation(target),
            )
    if differs:  # the switch has done what follows, too
        return
    for wanted in host.loop(target.arguments("app_service", "Keep | The directories as they are to be")):
        operations.directory(
            name=f"Runbook step 5, keep {wanted['path']}", wanted=wanted, unlike=found["paths"][wanted["path"]]
        )
    operations.service(
        name="Runbook step 6, keep the service enabled and running",
        runs=target.value("app_service", "__app_service_runs"),
        plan=lambda: _await(target),
    )


def _build(target: Target, home: str) -> tuple[Values, Values, str]:
    """The artifact, the script that builds its release, and what the role says where that fails."""
    (copy,) = target.arguments("app_release", "Build | Bring the artifact to the host")
    # Not /var/tmp, as there: an upload, unlike Ansible's, would follow a link that another user has put in its way.
    zip_file = str(Path(home, Path(copy["dest"]).name))
    (build,) = target.arguments(
        "app_release", "Build | Unpack it, make its venv, install what it requires", __app_release_zip=zip_file
    )
    nothing = {"stdout": "", "stderr": "", "msg": "see above."}
    (failure,) = target.arguments("app_release", "Build | Say what failed", __app_release_build=nothing)
    artifact = {
        "src": copy["src"],
        "dest": zip_file,
        "sha256": target.value("app_release", "__app_release_digest"),
        "url": target.value("app_release", "__app_release_is_url"),
    }
    return artifact, build, failure["msg"]


def _activation(target: Target) -> Values:
    """The program that switches to what is new, and what it is given."""
    (command,) = target.arguments("app_service", "Activate | Check the new state, switch to it, prove it or go back")
    return command


def _await(target: Target) -> tuple[Values, str]:
    """The question that waits until the service is ready, and what the role says where it does not become so."""
    (failure,) = target.arguments(
        "app_service",
        "Await | Say why it is not",
        __app_service_await={"stdout": json.dumps({"ready": "see above"})},
        __app_service_journal={"stdout": ""},
    )
    return target.value("app_service", "__app_service_awaited"), str(failure["msg"]).strip()


@functools.cache
def _serials() -> set[tuple[str, ...]]:
    """The values of `dispatch_serial` that the hosts of this run have."""
    targets = [load().host(one.name, inventory.get_override_data()) for one in _hosts()]
    return {tuple(target.value("dispatch", "__dispatch_serial")) for target in targets}


def _hosts() -> list[Any]:
    return [one for one in inventory.get_group(GROUP) if one in inventory.get_active_hosts()]


def _batches(target: Target) -> list[tuple[int, list[str]]]:
    """The names of the hosts to switch at once, one batch after another, as `dispatch_serial` divides them."""
    left = [one.name for one in _hosts()]
    total = len(left)
    batches: list[tuple[int, list[str]]] = []
    sizes = [pct_to_int(size, total) for size in target.value("dispatch", "__dispatch_serial")]
    while left:
        size = sizes[min(len(batches), len(sizes) - 1)]
        batches.append((len(batches) + 1, left[:size]))
        left = left[size:]
    return batches


def _show(found: Values, public: dict[str, str], release: str) -> None:
    """Say in what a host differs and, with --diff, what changes in the files that hold no secret."""
    for path, unlike in found["paths"].items():
        if unlike:
            host.log(f"{path}: {', '.join(unlike)}")
        if config.DIFF and path in public:
            before, after = found["texts"][path].splitlines(), public[path].splitlines()
            for line in difflib.unified_diff(before, after, path, path, lineterm=""):
                host.log(line)
    if found["link"] != release:
        host.log(f"the live release is {found['link'] or 'none'}, and is to be {release}")
