#!/usr/bin/python
"""Says which releases stand on a host, and which one is live."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_release_info
short_description: Say which releases stand on a host, and which one is live
description:
  - Reads the marks of the releases below a directory, and what they say that they are made of. Changes nothing, and
    runs nothing of theirs.
options:
  home:
    description: The directory that holds C(releases/) and C(current).
    type: path
    default: /app
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Find the releases
  app_release_info:
  register: found
"""

RETURN = r"""
live:
  description: The id of the release that C(current) leads to, or an empty string.
  returned: success
  type: str
previous:
  description: The id of the release to go back to, which was live before and is not newer, or an empty string.
  returned: success
  type: str
releases:
  description: The complete releases that have been live, the last one first.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Its id., type: str}
    built: {description: When it was built, in seconds since the epoch., type: float}
    activated: {description: When it was made live, in seconds since the epoch., type: float}
    version: {description: Its version by its SBOM (C(sbom.cdx.json)), or an empty string., type: str}
    commit: {description: The commit that it was built from, by its SBOM, or an empty string., type: str}
    components: {description: The versions of what runs in it, by name, by its SBOM., type: dict}
"""

from pathlib import Path

from ansible.module_utils.app_releases import been_live, complete, live, previous
from ansible.module_utils.app_sbom import made_of
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule({"home": {"type": "path", "default": "/app"}}, supports_check_mode=True)
    home = Path(module.params["home"])
    current = live(home)
    live_id = current.name if current else ""
    releases = complete(home)
    module.exit_json(
        changed=False,
        live=live_id,
        previous=previous(releases, live_id),
        releases=[{**one.as_dict(), **made_of(home / "releases" / one.id)} for one in been_live(releases)],
    )


if __name__ == "__main__":
    main()
