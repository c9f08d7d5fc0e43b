#!/usr/bin/python
"""Enables the stable feature flags of a host's RabbitMQ and its cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_feature_flags
short_description: Enable the stable feature flags of a host's RabbitMQ and its cluster
description:
  - A cluster enables a feature flag once, for all of its nodes, when all of them have the release that brought it.
    Nothing disables it again, and the next release may need it.
options: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
author: RoboShop
"""

EXAMPLES = r"""
- name: Enable what the new release has brought
  rabbitmq_feature_flags:
"""

RETURN = r"""
enabled:
  description: The flags that were enabled, or in check mode would be.
  returned: success
  type: list
  elements: str
"""

from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rabbitmq_flags import enable
from ansible.module_utils.rabbitmq_host import LOCALE
from ansible.module_utils.server_files import RefusedError


def main() -> None:
    module = AnsibleModule({}, supports_check_mode=True)

    run = partial(module.run_command, environ_update=LOCALE)
    try:
        enabled = enable(run, module.check_mode)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(changed=bool(enabled), enabled=enabled)


if __name__ == "__main__":
    main()
