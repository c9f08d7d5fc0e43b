"""Turns the definition of a service into one document: what is wanted of a host.

Both engines, and the modules app_state and app_switch, work from that document alone.
"""

from __future__ import annotations

import base64
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

ROLES = Path(__file__).resolve().parents[2]
# Ansible loads this file by its path, and finds no other file beside it. A host tells the kind of a release by the same
# code.
sys.path += [str(ROLES / "app_runbook" / "filter_utils"), str(ROLES / "app_release" / "module_utils")]

from app_faults import (  # noqa: E402 - only now can it be found
    KINDS,
    PRIVATE_ENVIRONMENT,
    TABLES,
    batches,
    faults,
    kinds_faults,
    private_faults,
    system_faults,
)
from app_kind import kind_of  # noqa: E402 - as above

# Both engines render these templates, so they belong to no role.
TEMPLATES = ROLES.parent / "templates"
# The definition names the user; the rest of its entry is the same for every service. Nobody logs in as a service.
ENTRY = {"comment": "RoboShop services", "shell": "/usr/sbin/nologin", "locked": True}
# SELinux's policy has no rule for a directory such as /app. This is the type of /usr/share and /opt, and new files
# inherit it.
HOME = {"owner": "root", "group": "root", "mode": "0755", "setype": "usr_t"}
# A service that runs wild must not take the host with it (systemd.resource-control(5)). A definition can set its own.
LIMITS = {"MemoryMax": "512M", "TasksMax": "64"}
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
    "check_zip": "",
    "ready_url": "",
    "ready_log": "",
    "fatal_exit_codes": [],
    "limits": {},
    "unit_overrides": {},
    "start_seconds": 60,
    "stop_seconds": 30,
    "releases_kept": 3,
    "index_url": "",
    "go_proxy": "",
    "ca_bundle": "",
    "require_hashes": True,
    "packages": {},
    "drain": None,
    "serial": [1, "100%"],
    "max_fail_percentage": 0,
    "faults": [],
    # What differs where a release is of another kind; see KINDS and OF_A_KIND in app_faults.py.
    "kinds": {"python": {}},
}


def wanted(
    definition: Mapping[str, Any], sandbox: object = None, systems: object = None, go_systems: object = None
) -> dict[str, Any]:
    """The document of what is wanted of a host.

    `definition` is what argument_specs.yml of the role app_runbook describes, `sandbox` the variable
    app_service_sandbox, `systems` python_runtime_systems, and `go_systems` go_runtime_systems. None stands for the
    default of each, which a play sees only once it has imported its role. Where a value can't be right, the document
    has ``faults`` alone, sentences that name the variable, what is wrong and what to do. ``artifact_faults`` are kept
    apart, because a rollback needs no artifact.
    """
    missing = [name for name in ("name", "description", "artifact", "command", "cli") if not definition.get(name)]
    if missing:
        names = ", ".join(missing)
        return {"faults": [f"The definition of the service has no {names}. Set what roles/app_runbook/README.md says."]}
    service = {**OPTIONAL, **definition}
    sandbox = role_default("app_service", "app_service_sandbox") if sandbox is None else sandbox
    wrong = kinds_faults(service["kinds"])
    if wrong:
        return {"faults": wrong}
    given = {"python": systems, "go": go_systems}
    tables = {kind: _table(kind, given.get(kind)) for kind in service["kinds"]}
    services = {kind: {**service, "faults": [], **differing} for kind, differing in service["kinds"].items()}
    found = [*service["faults"], *(one for of_one in services.values() for one in faults(of_one, sandbox))]
    found += [one for kind, table in tables.items() for one in system_faults(kind, table)]
    # What is wrong for one kind of release alone is no fault where another kind is to go live.
    unfit = {kind: [*one["faults"], *private_faults(one)] for kind, one in services.items()}
    if len(services) == 1:
        found += [one for faults_of_it in unfit.values() for one in faults_of_it]
    if found:
        return {"faults": list(dict.fromkeys(found))}
    serial, artifact = service["serial"], service["artifact"]
    kind = artifact.get("kind") or (next(iter(services)) if len(services) == 1 else "")
    return {
        "faults": [],
        "artifact_faults": [*artifact["faults"], *_unfit(service, kind, unfit)],
        "artifact": {name: artifact.get(name, "") for name in ("value", "url", "source", "signature")},
        "index_url": service["index_url"],
        "go_proxy": service["go_proxy"],
        "ca_bundle": service["ca_bundle"],
        "require_hashes": service["require_hashes"],
        "cli": f"/usr/bin/{service['name']}",
        "rollout": {"serial": batches(serial), "max_fail_percentage": int(service["max_fail_percentage"])},
        "check_zips": {kind: one["check_zip"] for kind, one in services.items()},
        "host": {
            "name": service["name"],
            "account": {"name": service["user"], **ENTRY},
            "home": {"path": service["home"], **HOME},
            "sha256": artifact["sha256"],
            "signers": artifact.get("signers", ""),
            "revoked": artifact.get("revoked", ""),
            "kind": kind,
            "go": artifact.get("go", ""),
            "installer": artifact.get("installer", False),
            "configuration": configuration(service["name"]),
            # The modules' logs leave out what stands here, so it stands apart from the rest of each kind.
            "credentials": {kind: _credentials(one) for kind, one in services.items()},
            "kinds": {kind: _of_kind(one, sandbox, tables[kind], unfit[kind]) for kind, one in services.items()},
            "start_seconds": int(service["start_seconds"]),
            "stop_seconds": int(service["stop_seconds"]),
            "releases_kept": int(service["releases_kept"]),
            "drain": service["drain"],
        },
    }


def _of_kind(service: Mapping[str, Any], sandbox: Any, systems: object, unfit: list[str]) -> dict[str, Any]:
    """What is wanted of a host only where the release is of one kind, for which `service` is the definition."""
    return {
        "systems": systems,
        "packages": service["packages"],
        "files": _files(service, sandbox),
        "check": service["check"],
        "check_zip": f"/var/cache/{service['name']}-check.zip" if service["check_zip"] else "",
        "ready_url": service["ready_url"],
        "ready_log": service["ready_log"],
        "faults": unfit,
    }


def _unfit(service: Mapping[str, Any], kind: str, unfit: Mapping[str, list[str]]) -> list[str]:
    """Why the artifact, which is of this kind, can't go live; a kind of "" is one that only a host can tell."""
    if not kind or kind in unfit:
        return unfit.get(kind, [])
    return [
        f"{service['name']}_artifact is {service['artifact']['value']}, which is {KINDS[kind]}. "
        f"{service['name']} takes {', or '.join(KINDS[one] for one in unfit)}: name such an artifact."
    ]


def release_faults(document: Mapping[str, Any], release: str) -> list[str]:
    """Why the release of this id can't go live as the service that a document is about."""
    host, kind = document["host"], kind_of(release)
    if kind in host["kinds"]:
        return list(host["kinds"][kind]["faults"])
    return [f"The release {release} is of the kind {kind}, which {host['name']} does not run. Go back to another one."]


def _table(kind: str, given: object) -> object:
    """The table of systems of one kind of release: what a play has `given`, or the default of its role."""
    return given if given is not None else role_default(*TABLES[kind]) if kind in TABLES else {}


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
        # A release without a command line of its own has no command for operators, either.
        if service["cli"] or not name.startswith("command")
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
    environment.filters["quoted"] = _quoted
    return environment.get_template(name)


def _credentials(service: Mapping[str, Any]) -> dict[str, str]:
    """The base64 of each secret, by the name of its file."""
    return {name: base64.b64encode(str(secret).encode()).decode() for name, secret in _secrets(service).items()}


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


class FilterModule:
    """The filters of this file, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_wanted": wanted, "app_kind": kind_of, "app_release_faults": release_faults}
