"""Finds what can't be right in the definition of a service, on the controller."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# The file among the credentials that holds those of them which the service finds in its environment.
PRIVATE_ENVIRONMENT = "environment"
# What a release may be, by its kind; a definition says under `kinds` which of them the service runs.
KINDS = {
    "python": "a Python program (a zip with requirements.txt)",
    "go": "the source of a Go program (a zip with go.mod or *.go)",
    "binary": "a program that is ready to run",
}
# Where each kind's table of systems stands, which says what builds and runs it; a binary needs neither.
TABLES = {
    "python": ("python_runtime", "python_runtime_systems"),
    "go": ("go_runtime", "go_runtime_systems"),
}
# What of a definition can differ from kind to kind.
OF_A_KIND = {
    "command", "cli", "host_command", "environment", "environment_credentials", "check", "check_zip", "notify",
    "ready_url", "ready_log", "fatal_exit_codes", "limits", "unit_overrides", "faults",
}  # fmt: skip


def batches(serial: object) -> list[str]:
    """The sizes of the batches, as strings. ``-e`` gives a single value, and an inventory may give numbers."""
    return [str(size) for size in (serial if isinstance(serial, list | tuple) else [serial])]


def faults(service: Mapping[str, Any], sandbox: object) -> list[str]:
    """The faults of a service's definition, a sentence each, which call the variables ``<service>_…``."""
    name, serial, found = service["name"], service["serial"], []
    sizes = batches(serial)
    if not sizes or not all(re.fullmatch(r"[1-9][0-9]*|([1-9][0-9]?|100)%", size) for size in sizes):
        found.append(
            f"{name}_serial is {json.dumps(serial)}. Set it to a list of numbers of hosts or percentages, such as [1, "
            f"""100%]; on the command line, -e '{{"{name}_serial": [1, "100%"]}}'."""
        )
    percentage = service["max_fail_percentage"]
    if not re.fullmatch(r"[0-9]{1,2}|100", str(percentage)):
        found.append(
            f"{name}_max_fail_percentage is {percentage}. Set it to a percentage from 0 to 100, without a sign."
        )
    if not _at_least_one(service["releases_kept"]):
        found.append(
            f"{name}_releases_kept is {service['releases_kept']}. Set it to 1, for the live release alone, or more."
        )
    if not _at_least_one(service["start_seconds"]):
        found.append(
            f"{name}_start_seconds is {service['start_seconds']}. Set it to the seconds that a restarted service may "
            "take to be ready."
        )
    found += _directive_faults("app_service_sandbox", sandbox)
    for kind in ("limits", "unit_overrides"):
        found += _directive_faults(f"{name}_{kind}", service[kind])
    if not isinstance(service["environment"], Mapping):
        found.append(f"{name}_environment is not a dictionary. Set it to settings by their names.")
    else:
        for key, value in service["environment"].items():
            if re.search(r"[\r\n\0]", str(value)):
                found.append(f"{name}_environment.{key} has a line break. Set it to a value of one line.")
    if not _packages_by_manager(service["packages"]):
        found.append(
            f"The packages of {name} are {json.dumps(service['packages'], default=str)}. Set them to lists by what "
            "installs them, such as {apt: [libpq5], dnf: [libpq]}."
        )
    if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", str(service["home"])):
        found.append(
            f"The home of {name} is {service['home']}. Set it to an absolute path of a directory that is the service's "
            "alone, such as /app."
        )
    try:
        re.compile(str(service["ready_log"]))
    except re.error as error:
        found.append(
            f"{name}_ready_log is {service['ready_log']}, and that is no regular expression: {error}. Correct it, or "
            "leave it empty for systemd's word alone."
        )
    if service["index_url"] and not re.fullmatch(r"https?://\S+", str(service["index_url"])):
        found.append(f"{name}_index_url is no URL. Set it to that of a package index, or leave it out.")
    if service["ca_bundle"] and not str(service["ca_bundle"]).startswith("/"):
        found.append(
            f"{name}_ca_bundle is {service['ca_bundle']}. Set it to the absolute path of a file on the host, or leave "
            "it out."
        )
    return found


def system_faults(kind: str, systems: object) -> list[str]:
    """What is wrong with the table of systems of one kind of release."""
    if kind not in TABLES:
        return []
    (role, variable), program = TABLES[kind], {"python": "interpreter", "go": "compiler"}[kind]
    remedy = f"Describe your system as roles/{role}/defaults/main.yml does."
    if not isinstance(systems, Mapping):
        return [f"{variable} is not a dictionary. {remedy}"]
    return [
        f"{variable}.{system} has no {program} with an absolute path, or no list of packages. {remedy}"
        for system, row in systems.items()
        if not (
            isinstance(row, Mapping)
            and str(row.get(program, "")).startswith("/")
            and all(isinstance(row.get(name, []), list) for name in ("packages", "bare"))
        )
    ]


def kinds_faults(kinds: object) -> list[str]:
    """What is wrong with a definition's `kinds`."""
    remedy = "Set it to what roles/app_runbook/README.md says."
    if not isinstance(kinds, Mapping) or not kinds:
        return [f"The kinds of the service are no dictionary with an entry. {remedy}"]
    found = [f"The service has the kind {kind}. {remedy}" for kind in kinds if kind not in KINDS]
    for kind, given in kinds.items():
        names = sorted(set(given) - OF_A_KIND) if isinstance(given, Mapping) else ["no dictionary"]
        found += [f"The kind {kind} of the service has {name}. {remedy}" for name in names]
    return found


def private_faults(service: Mapping[str, Any]) -> list[str]:
    """What keeps a service's secrets from its environment."""
    name, named, credentials = service["name"], service["environment_credentials"], service["credentials"]
    if not isinstance(named, Mapping):
        return [f"{name}_environment_credentials is not a dictionary. Set it to credentials by variables' names."]
    found = []
    if named and PRIVATE_ENVIRONMENT in credentials:
        found.append(
            f"{name} has a credential named {PRIVATE_ENVIRONMENT}, which is the file of its environment_credentials. "
            "Give the credential another name."
        )
    for variable, credential in named.items():
        what = f"{name}_environment_credentials.{variable}"
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(variable)):
            found.append(f"{what} is no name of a variable. Take letters, digits and underscores.")
        elif variable in service["environment"]:
            found.append(f"{what} is in {name}_environment, too. Leave it out there: everybody can read that.")
        elif credential not in credentials:
            found.append(f"{what} is {credential}, and {name} has no such credential. Set it to the name of one.")
        elif re.search(r"[\r\n\0]", str(credentials[credential])):
            found.append(
                f"{what}: the credential {credential} has a line break, which no variable of a service can hold. Set "
                "it to a value of one line."
            )
    return found


def _directive_faults(variable: str, directives: object) -> list[str]:
    if not isinstance(directives, Mapping):
        return [f"{variable} is not a dictionary. Set it to directives of the unit by their names."]
    found = []
    for name, value in directives.items():
        if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", str(name)):
            found.append(f'{variable} has the directive "{name}". Take a name that systemd.directives(7) lists.')
        elif not all(isinstance(one, str | int | float) for one in (value if isinstance(value, list) else [value])):
            found.append(
                f"{variable}.{name} is {json.dumps(value, default=str)}. Set it to a value, or to a list of values."
            )
        elif re.search(r"[\r\n\0]", str(value)):
            found.append(f"{variable}.{name} has a line break. Set it to a value of one line, or to a list of them.")
    return found


def _packages_by_manager(packages: object) -> bool:
    return isinstance(packages, Mapping) and all(
        manager in ("apt", "dnf") and isinstance(names, list) and all(isinstance(name, str) for name in names)
        for manager, names in packages.items()
    )


def _at_least_one(value: object) -> bool:
    return re.fullmatch(r"0*[1-9][0-9]*", str(value)) is not None
