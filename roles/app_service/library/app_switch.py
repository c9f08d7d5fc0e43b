#!/usr/bin/python
"""Brings a host to a release and its settings, if they work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_switch
short_description: Bring a host to a release and its settings, if they work
description:
  - Checks the release as the service would start it, saves what is live, makes release, unit, settings and credentials
    live together, restarts the service, and proves that it is ready and stays ready. If it is not, puts back what was
    live and proves that.
  - Ends on its own, one way or the other, when the connection goes away. Refuses to run twice at once on a host.
  - If the host reboots before that, a unit puts back what was live before the service starts.
  - Where there is nothing to switch, corrects the directories, and makes sure that the service is enabled, running and
    ready.
  - With C(--diff) it shows what changes, except credentials and files that it did not write itself.
options:
  wanted:
    description: What is wanted of the host, as in M(app_state).
    type: dict
    required: true
  release:
    description: The directory of the release to make live.
    type: path
    required: true
  rebuilt:
    description: The release has just been built anew, so that it is switched to even if it is the live one.
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
- name: Switch to what is new, if it works
  app_switch:
    wanted: "{{ dispatch_wanted.host }}"
    release: /app/releases/0d69affe422b-python3.11
"""

RETURN = r""" # """

from pathlib import Path

from ansible.module_utils.app_arguments import WANTED
from ansible.module_utils.app_comparison import UnfitError, diff, of_kind, service_changes
from ansible.module_utils.app_kind import kind_of
from ansible.module_utils.app_switching import switch
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        {
            "wanted": WANTED,
            "release": {"type": "path", "required": True},
            "rebuilt": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    release, rebuilt = Path(module.params["release"]), module.params["rebuilt"]
    try:
        wanted = of_kind(module.params["wanted"], kind_of(release.name))
        shown = {"diff": diff(wanted, release)}
        if module.check_mode:
            module.exit_json(changed=rebuilt or bool(service_changes(wanted, release)), **shown)
        outcome = switch(wanted, release, rebuilt)
    except (UnfitError, OSError) as error:
        module.fail_json(msg=str(error))
    if outcome.note:
        module.warn(outcome.note)
    if outcome.failure:
        module.fail_json(msg=outcome.failure, changed=outcome.changed)
    module.exit_json(changed=outcome.changed, **shown)


if __name__ == "__main__":
    main()
