#!/usr/bin/python
"""Gives a host's RabbitMQ its plugins, settings and certificates, or leaves it running as it was."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_configuration
short_description: Give a host's RabbitMQ its plugins, settings and certificates, or leave it running as it was
description:
  - What would keep RabbitMQ from booting, or make it come up without its queues, is refused before anything changes.
  - Where the files differ, the previous ones are kept, the new ones placed and RabbitMQ is restarted. If it does not
    come up, the previous files are put back, RabbitMQ is restarted with those, and the module fails with the reason.
  - Where certificates alone differ, RabbitMQ reads them anew without a restart, which would cost transient messages.
  - A member of a cluster is restarted only where all others run and every quorum queue has a majority without it. It
    hands over its clients and leaders first.
  - Where no systemd runs, as while an image is made, the files are placed and nothing is started.
options:
  plugins:
    description: The plugins to enable; any other is disabled.
    type: list
    elements: str
    required: true
  listeners:
    description: Text of the file that says where plugins listen; empty for no file.
    type: str
    default: ""
  tls:
    description: Text of the file that sets up TLS; empty for no TLS.
    type: str
    default: ""
  ca:
    description: PEM text of the CA's certificate.
    type: str
    default: ""
  certificate:
    description: PEM text of the broker's certificate.
    type: str
    default: ""
  key:
    description: PEM text of its key.
    type: str
    default: ""
  cluster:
    description: Text of the file that makes the node one of a cluster; empty for no file.
    type: str
    default: ""
  nodes_tls:
    description: Text of the file that has the nodes of a cluster speak to each other in TLS; empty for in clear.
    type: str
    default: ""
  cookie:
    description: The Erlang cookie that the nodes of the cluster share; empty leaves the node's own.
    type: str
    default: ""
  upgraded_from:
    description: The version that ran before its packages were replaced, for which it was stopped; empty for none.
    type: str
    default: ""
  addresses:
    description: Addresses of the host that RabbitMQ is to listen on, by the variable each stands in.
    type: dict
    default: {}
  only_check:
    description: Refuse what has to be refused, change nothing, and say nothing of what differs.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Enable the management plugin, and let it listen on loopback alone
  rabbitmq_configuration:
    plugins: [rabbitmq_management]
    listeners: |
      management.tcp.ip = 127.0.0.1
      management.tcp.port = 15672
    addresses: {rabbitmq_management_address: 127.0.0.1}
"""

RETURN = r"""
changed_files:
  description: Paths that differed from what is wanted.
  returned: success
  type: list
  elements: str
restarted:
  description: Whether RabbitMQ was started or restarted.
  returned: success
  type: bool
running:
  description: Whether RabbitMQ runs.
  returned: success
  type: bool
"""

from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_cluster import COOKIE, Member
from ansible.module_utils.rabbitmq_host import ENVIRONMENT, LOCALE
from ansible.module_utils.rabbitmq_nodes_tls import OPTIONS, with_tls, without_tls
from ansible.module_utils.server_files import (
    File,
    Previous,
    RefusedError,
    diff,
    differing,
    directory,
    fall_back,
    found,
    group_of,
    place,
    user_of,
)

PLUGINS = Path("/etc/rabbitmq/enabled_plugins")
SETTINGS = Path("/etc/rabbitmq/conf.d")
CERTIFICATES = Path("/etc/rabbitmq/tls")
CLUSTER = "32-roboshop-cluster.conf"
PREVIOUS = Path("/etc/rabbitmq/.previous.json")
# These settings matter to a node that has never run.
_AT_FIRST = b"cluster_formation."


def main() -> None:
    module = AnsibleModule(
        {
            "plugins": {"type": "list", "elements": "str", "required": True},
            "listeners": {"type": "str", "default": ""},
            "tls": {"type": "str", "default": ""},
            "ca": {"type": "str", "default": ""},
            "certificate": {"type": "str", "default": ""},
            "key": {"type": "str", "default": "", "no_log": True},
            "cluster": {"type": "str", "default": ""},
            "nodes_tls": {"type": "str", "default": ""},
            "cookie": {"type": "str", "default": "", "no_log": True},
            "upgraded_from": {"type": "str", "default": ""},
            "addresses": {"type": "dict", "default": {}},
            "only_check": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )

    run = partial(module.run_command, environ_update=LOCALE)
    try:
        result = settle(Member(run), module.params, module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(**result)


def files(wanted: dict[str, Any], owner: int, group: int) -> list[File]:
    """Return every file of RabbitMQ's that the role sees to, as it is wanted."""

    def ours(path: Path, text: str, **more: bool) -> File:
        return File(path, text.encode() or None, 0o640, 0, group, **more)

    return [
        File(PLUGINS, f"[{','.join(wanted['plugins'])}].\n".encode()),
        ours(SETTINGS / "30-roboshop-tls.conf", wanted["tls"]),
        ours(SETTINGS / "31-roboshop-listeners.conf", wanted["listeners"]),
        ours(SETTINGS / CLUSTER, wanted["cluster"]),
        ours(OPTIONS, wanted["nodes_tls"]),
        environment(wanted["nodes_tls"]),
        *(certificates(wanted, ours) if wanted["tls"] or wanted["nodes_tls"] else ()),
        *([File(COOKIE, wanted["cookie"].encode(), 0o400, owner, group, secret=True)] if wanted["cookie"] else ()),
    ]


def environment(tls: str) -> File:
    """Return the file of RabbitMQ's environment, which is the administrator's but for the lines that turn on TLS."""
    there = found(File(ENVIRONMENT, None))
    text = (there.content or b"").decode(errors="surrogateescape")
    wanted = with_tls(text) if tls else without_tls(text)
    content = there.content if wanted == text else wanted.encode(errors="surrogateescape") or None
    return File(ENVIRONMENT, content, there.mode, there.owner, there.group)


def certificates(wanted: dict[str, Any], ours: Any) -> list[File]:
    """Return the CA, the certificate and the key, as they are wanted."""
    return [
        ours(CERTIFICATES / "ca.pem", wanted["ca"]),
        ours(CERTIFICATES / "broker.pem", wanted["certificate"]),
        ours(CERTIFICATES / "broker.key", wanted["key"], secret=True),
    ]


def settle(host: Any, wanted: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Make the host what is wanted, and return the module's result. Raises RefusedError."""
    host.refuse_renamed()
    host.refuse_unresolvable()
    host.refuse_foreign_addresses(wanted["addresses"])
    if wanted["nodes_tls"]:
        host.refuse_other_arguments()
    owner, group = (user_of("rabbitmq"), group_of("rabbitmq")) if host.installed else (0, 0)
    due = differing(files(wanted, owner, group))
    if host.installed and (PLUGINS in [file.path for file in due] or not host.running):
        host.refuse_unknown_plugins(wanted["plugins"])
    if wanted["only_check"]:
        return {"changed": False, "changed_files": [], "restarted": False, "running": host.running}
    previous = Previous(PREVIOUS)
    restart = host.booted and (bool(due) or previous.stands or not host.running)
    stays = restart and host.running and not previous.stands and all(map(takes_no_restart, due))
    result = {
        "changed": bool(due) or restart,
        "changed_files": [str(file.path) for file in due],
        "restarted": restart and not stays,
        "running": host.running,
        "diff": diff(due),
    }
    if check_mode:
        return result
    for path in {file.path.parent for file in due if file.content is not None} - {PLUGINS.parent, COOKIE.parent}:
        directory(path, group)
    if restart and not stays:
        switch(host, due, previous, [5671] if wanted["tls"] else [], wanted["upgraded_from"])
    else:
        for file in due:
            place(file)
        if stays and any(file.path.parent == CERTIFICATES for file in due):
            host.reread_certificates()
    return {**result, "running": host.booted}


def takes_no_restart(file: File) -> bool:
    """Whether a file that differs takes effect without a restart: a renewed certificate, other peers at first."""

    def in_force(content: bytes | None) -> list[bytes]:
        return [line for line in (content or b"").splitlines() if not line.startswith(_AT_FIRST)]

    if file.path.name == CLUSTER and file.content:
        return in_force(file.content) == in_force(found(file).content)
    return bool(file.path.parent == CERTIFICATES)


def switch(host: Any, due: list[File], previous: Previous, ports: list[int], upgraded_from: str) -> None:
    """Place the files and restart RabbitMQ, or put everything back. Raises RefusedError with the reason."""
    ran = host.running
    if ran:
        host.step_aside()
        if {COOKIE, ENVIRONMENT} & {file.path for file in due}:
            host.stop()
    previous.replace(due)
    reason = host.restart(ports)
    if not reason:
        previous.forget()
        host.come_back()
        return
    failure = fall_back("RabbitMQ", previous, ran or bool(upgraded_from), reason, lambda: host.restart([]))
    if upgraded_from:
        raise RefusedError(
            f"{failure}\nIt was upgraded from {upgraded_from}, and RabbitMQ supports no way back. Nodes whose turn "
            "has not come run on as they did. Once this one runs, run the play again."
        )
    raise failure


if __name__ == "__main__":
    main()
