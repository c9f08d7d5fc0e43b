#!/usr/bin/python
"""Gives Prometheus, Alertmanager or the node exporter of a host its configuration, or leaves it running as it was."""

from __future__ import annotations

DOCUMENTATION = r"""
module: monitoring_configuration
short_description: Give one of Prometheus' programs its configuration, or leave it running as it was
description:
  - Files that the program's own tool refuses are refused before anything changes.
  - Where the files differ, the previous ones are kept and the new ones placed. The program reads them anew, and is
    restarted only where its command line differs. If it does not take them or does not start, the previous files are
    put back, and the module fails with the reason.
  - Where no systemd runs, as while an image is made, the files are placed and nothing is started.
options:
  service:
    description: The unit, as the distribution's package names it.
    type: str
    required: true
  url:
    description: Base URL at which the program answers on the host itself.
    type: str
    required: true
  arguments:
    description: The program's command line, which goes into C(/etc/default).
    type: str
    required: true
  files:
    description: Text of each file by its path below C(/etc/prometheus).
    type: dict
    default: {}
  main:
    description: The path of the one of them that refers to the others.
    type: str
    default: ""
  secrets:
    description:
      - Text of each secret by the name of its file in C(/etc/prometheus/secrets); others there are removed.
      - Without it, that directory is left alone.
    type: dict
  check:
    description: The command line of the tool that checks C(main), without its path.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Run Prometheus with one rule file
  monitoring_configuration:
    service: prometheus
    url: http://127.0.0.1:9090
    arguments: --web.listen-address=127.0.0.1:9090
    files:
      prometheus.yml: |
        rule_files: [rules/*.yml]
      rules/hosts.yml: "{{ lookup('file', 'hosts.yml') }}"
    main: prometheus.yml
    check: [promtool, check, config]
"""

RETURN = r"""
changed_files:
  description: Paths that differed from what is wanted.
  returned: success
  type: list
  elements: str
restarted:
  description: Whether the program was started or restarted; in check mode, whether it has to be.
  returned: success
  type: bool
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.monitoring_host import Host
from ansible.module_utils.server_files import (
    File,
    Previous,
    RefusedError,
    diff,
    differing,
    directory,
    fall_back,
    group_of,
    place,
)

ROOT = Path("/etc/prometheus")
DEFAULTS = Path("/etc/default")
GROUP = "prometheus"
_HEADER = "# Written by the role monitoring; changes made here by hand are overwritten.\n"


def main() -> None:
    module = AnsibleModule(
        {
            "service": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "arguments": {"type": "str", "required": True},
            "files": {"type": "dict", "default": {}},
            "main": {"type": "str", "default": ""},
            "secrets": {"type": "dict", "no_log": True},
            "check": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    try:
        host = Host(module.run_command, wanted["service"], wanted["url"])
        result = settle(host, wanted, module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(**result)


def files(wanted: dict[str, Any], group: int) -> tuple[list[File], File]:
    """Return the files that the program reads anew, and the one with its command line."""
    texts = {ROOT / name: text for name, text in wanted["files"].items()}
    secrets: dict[Path, str | None] = {}
    if wanted["secrets"] is not None:
        secrets = dict.fromkeys((ROOT / "secrets").glob("*"))
        secrets.update({ROOT / "secrets" / name: text for name, text in wanted["secrets"].items()})
    read = [File(path, text.encode(), 0o640, 0, group) for path, text in texts.items()]
    read += [
        File(path, None if text is None else text.encode(), 0o640, 0, group, secret=True)
        for path, text in secrets.items()
    ]
    # systemd.exec(5), EnvironmentFile=: within double quotes a backslash escapes.
    escaped = wanted["arguments"].replace("\\", "\\\\").replace('"', '\\"')
    return read, File(DEFAULTS / wanted["service"], f'{_HEADER}ARGS="{escaped}"\n'.encode())


def settle(host: Any, wanted: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Make the host what is wanted, and return the module's result. Raises RefusedError."""
    try:
        group = group_of(GROUP)
    except KeyError:  # the package makes it
        if not check_mode:
            raise RefusedError(
                f"The group {GROUP} is missing, which the package of {wanted['service']} makes."
            ) from None
        group = 0
    read, command = files(wanted, group)
    host.refuse_bad_files(wanted["check"], ROOT / wanted["main"], [file for file in read if not file.secret])
    due = differing([*read, command])
    # There, because the package of the node exporter alone makes no directory for the others.
    previous = Previous(DEFAULTS / f".{wanted['service']}-previous.json")
    starts = host.booted and (not host.running or command in due)
    result = {
        "changed": bool(due) or starts or (host.booted and previous.stands),
        "changed_files": [str(file.path) for file in due],
        "restarted": starts,
        "diff": diff(due),
    }
    if check_mode or not result["changed"]:
        return result
    for path in {file.path.parent for file in read} - {ROOT}:
        directory(path, group)
    if host.booted:
        switch(host, wanted["service"], due, previous, starts)
    else:
        for file in due:
            place(file)
    return result


def switch(host: Any, service: str, due: list[File], previous: Previous, starts: bool) -> None:
    """Place the files and put them in force, or put everything back. Raises RefusedError with the reason."""
    ran = host.running
    previous.replace(due)
    # What a play that was cut short has placed may hold another command line.
    anew = starts or any(file.path.parent == DEFAULTS for file in previous.files())
    reason = host.restart() if anew else host.reload()
    if not reason:
        previous.forget()
        return
    raise fall_back(service, previous, ran, reason, host.restart)


if __name__ == "__main__":
    os.umask(0o077)
    main()
