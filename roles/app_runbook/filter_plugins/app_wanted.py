"""Turns the definition of a service into one document: what is wanted of a host.

Both engines, and the modules app_state and app_switch, work from that document alone.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

ROLES = Path(__file__).resolve().parents[2]
# Both engines render these templates, so they belong to no role.
TEMPLATES = ROLES.parent / "templates"
# The definition names the user; the rest of its entry is the same for every service. Nobody logs in as a service.
ENTRY = {"comment": "RoboShop services", "shell": "/usr/sbin/nologin", "locked": True}
# SELinux's policy has no rule for a directory such as /app. This is the type of /usr/share and /opt, and new files
# inherit it.
HOME = {"owner": "root", "group": "root", "mode": "0755", "setype": "usr_t"}
# A service that runs wild must not take the host with it (systemd.resource-control(5)). A definition can set its own.
LIMITS = {"MemoryMax": "512M", "TasksMax": "64"}
# The file among the credentials that holds those of them which the service finds in its environment.
PRIVATE_ENVIRONMENT = "environment"
# A definition may leave these out, and must have `name`, `description`, `artifact`, `command` and `cli`.
OPTIONAL: dict[str, Any] = {
    "user": "roboshop",
    "home": "/app",
    "environment": {},
    "credentials": {},
    "environment_credentials": {},
    "host_command": "",
    "notify": False,
    "check": "",
    "ready_url": "",
    "ready_log": "",
    "fatal_exit_codes": [],
    "limits": {},
    "unit_overrides": {},
    "start_seconds": 60,
    "stop_seconds": 30,
    "releases_kept": 3,
    "index_url": "",
    "ca_bundle": "",
    "drain": None,
    "serial": [1, "100%"],
    "max_fail_percentage": 0,
    "faults": [],
}


def wanted(definition: Mapping[str, Any], sandbox: object = None, systems: object = None) -> dict[str, Any]:
    """The document of what is wanted of a host.

    `definition` is what argument_specs.yml of the role app_runbook describes, `sandbox` the variable
    app_service_sandbox, and `systems` python_runtime_systems. None stands for the default of either, which a play sees
    only once it has imported its role. Where a value can't be right, the document has ``faults`` alone, sentences that
    name the variable, what is wrong and what to do. ``artifact_faults`` are kept apart, because a rollback needs no
    artifact.
    """
    missing = [name for name in ("name", "description", "artifact", "command", "cli") if not definition.get(name)]
    if missing:
        names = ", ".join(missing)
        return {"faults": [f"The definition of the service has no {names}. Set what roles/app_runbook/README.md says."]}
    service = {**OPTIONAL, **definition}
    sandbox = role_default("app_service", "app_service_sandbox") if sandbox is None else sandbox
    systems = role_default("python_runtime", "python_runtime_systems") if systems is None else systems
    found = [*service["faults"], *faults(service, sandbox, systems)]
    if found:
        return {"faults": found}
    serial, artifact = service["serial"], service["artifact"]
    return {
        "faults": [],
        "artifact_faults": list(artifact["faults"]),
        "artifact": {name: artifact[name] for name in ("value", "url", "source")},
        "index_url": service["index_url"],
        "ca_bundle": service["ca_bundle"],
        "cli": f"/usr/bin/{service['name']}",
        "rollout": {"serial": batches(serial), "max_fail_percentage": int(service["max_fail_percentage"])},
        "host": {
            "name": service["name"],
            "systems": systems,
            "account": {"name": service["user"], **ENTRY},
            "home": {"path": service["home"], **HOME},
            "sha256": artifact["sha256"],
            "configuration": configuration(service["name"]),
            "files": _files(service, sandbox),
            "credentials": {name: _base64(secret) for name, secret in _secrets(service).items()},
            "check": service["check"],
            "ready_url": service["ready_url"],
            "ready_log": service["ready_log"],
            "start_seconds": int(service["start_seconds"]),
            "stop_seconds": int(service["stop_seconds"]),
            "releases_kept": int(service["releases_kept"]),
            "drain": service["drain"],
        },
    }


@functools.cache
def role_default(role: str, variable: str) -> Any:
    """The default of a variable of another role."""
    return yaml.safe_load((ROLES / role / "defaults" / "main.yml").read_text(encoding="utf-8"))[variable]


def configuration(name: str) -> str:
    """The directory of a service's settings and credentials."""
    return f"/etc/{name}"


def _places(name: str) -> dict[str, tuple[str, str, str]]:
    """The rendered files by name: the template, the path and the mode of each."""
    units, last = "/etc/systemd/system", "zzzz-credentials.conf"
    return {
        "environment": ("app.env.j2", f"{configuration(name)}/environment", "0644"),
        "unit": ("app.service.j2", f"{units}/{name}.service", "0644"),
        "drop_in": ("app.credentials.j2", f"{units}/{name}.service.d/{last}", "0644"),
        # The command is not in /usr/local, because sudo's secure_path leaves that out on the RHEL family.
        "command": ("app.command.j2", f"/usr/bin/{name}", "0755"),
        "command_drop_in": ("app.credentials.j2", f"{units}/{name}-command-.service.d/{last}", "0644"),
    }


def _files(service: Mapping[str, Any], sandbox: Any) -> dict[str, dict[str, str]]:
    places = _places(service["name"])
    directives = {**sandbox, **LIMITS, **service["limits"], **service["unit_overrides"]}
    values = {
        "service": service,
        "credentials": sorted(service["credentials"]),  # names only, because no template needs a secret
        "directives": directives,
        "environment_file": places["environment"][1],
        "credentials_directory": f"{configuration(service['name'])}/credentials",
        "private_environment": PRIVATE_ENVIRONMENT if service["environment_credentials"] else "",
    }
    return {
        name: {"path": path, "mode": mode, "content": _template(template).render(values)}
        for name, (template, path, mode) in places.items()
    }


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - these are units and shell, no HTML
    )
    return environment.get_template(name)


def _secrets(service: Mapping[str, Any]) -> dict[str, Any]:
    """The files of the directory of credentials, by name: each credential's, and the secret environment's."""
    named = service["environment_credentials"]
    if not named:
        return dict(service["credentials"])
    lines = [f"{variable}={_quoted(service['credentials'][named[variable]])}\n" for variable in sorted(named)]
    return {**service["credentials"], PRIVATE_ENVIRONMENT: "".join(lines)}


def _quoted(value: object) -> str:
    """A value as an environment file has it: within double quotes, a backslash escapes (systemd.exec(5))."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _base64(secret: object) -> str:
    return base64.b64encode(str(secret).encode()).decode()


def batches(serial: object) -> list[str]:
    """The sizes of the batches, as strings. ``-e`` gives a single value, and an inventory may give numbers."""
    return [str(size) for size in (serial if isinstance(serial, list | tuple) else [serial])]


def faults(service: Mapping[str, Any], sandbox: object, systems: object) -> list[str]:
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
    found += _environment_credential_faults(service)
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
    return found + _system_faults(systems)


def _environment_credential_faults(service: Mapping[str, Any]) -> list[str]:
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


def _system_faults(systems: object) -> list[str]:
    remedy = "Describe your system as roles/python_runtime/defaults/main.yml does."
    if not isinstance(systems, Mapping):
        return [f"python_runtime_systems is not a dictionary. {remedy}"]
    return [
        f"python_runtime_systems.{system} has no interpreter with an absolute path, or no list of packages. {remedy}"
        for system, row in systems.items()
        if not (
            isinstance(row, Mapping)
            and str(row.get("interpreter", "")).startswith("/")
            and isinstance(row.get("packages", []), list)
        )
    ]


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


def _at_least_one(value: object) -> bool:
    return re.fullmatch(r"0*[1-9][0-9]*", str(value)) is not None


class FilterModule:
    """The filters of this file, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_wanted": wanted}
