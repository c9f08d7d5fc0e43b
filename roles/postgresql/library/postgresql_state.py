#!/usr/bin/python
"""Says what a host's PostgreSQL is, and refuses what it is to be where that can't be."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_state
short_description: Say what a host's PostgreSQL is, and refuse what it is to be where that can't be
description:
  - Refuses several clusters on one host, a replica that is to be the primary, and a server with databases of its own
    that is to be a replica; and names of clients that the host can't resolve.
  - Changes nothing.
options:
  primary:
    description: The name of the server that this one is to be a replica of; empty for a primary.
    type: str
    default: ""
  rebuild:
    description: Whether what a replica-to-be has is to be lost.
    type: bool
    default: false
  reached_from:
    description: Addresses, networks and names from where somebody is to log in.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: See whether this host can be the primary
  postgresql_state:
"""

RETURN = r"""
installed:
  description: Whether there is a server.
  returned: success
  type: bool
"""


from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.postgresql_access import UnresolvedError, networks
from ansible.module_utils.postgresql_host import Host
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule(
        {
            "primary": {"type": "str", "default": ""},
            "rebuild": {"type": "bool", "default": False},
            "reached_from": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )

    try:
        host = Host(module.run_command)
        host.refuse_other_role(module.params["primary"], module.params["rebuild"])
        networks(module.params["reached_from"])
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    except UnresolvedError as unresolved:
        module.fail_json(msg=f"{unresolved}; nothing has changed.")
    module.exit_json(changed=False, installed=host.cluster is not None)


if __name__ == "__main__":
    main()
