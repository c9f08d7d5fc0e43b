#!/usr/bin/python
"""Says what an artifact on the host is, and whether its signature counts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_artifact_info
short_description: Say what an artifact on the host is, and whether its signature counts
description:
  - Reads a zip, and tells Python, Go source and a binary from each other by what stands at its root.
  - Where C(signers) says who may sign it, its signature, which is beside it with C(.sig) appended, is verified first.
  - Changes nothing.
options:
  artifact:
    description: Path of the zip.
    type: path
    required: true
  name:
    description: Name of the service, which is also the name of a binary.
    type: str
    required: true
  signers:
    description: Who may sign the artifact, the text of an allowed_signers file (ssh-keygen(1)). Empty for no signature.
    type: str
    default: ""
  revoked:
    description: Public keys, one a line, that may not sign it, whatever C(signers) says.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Tell what the artifact is
  app_artifact_info:
    artifact: /var/cache/dispatch.zip
    name: dispatch
  register: artifact
"""

RETURN = r"""
kind:
  description: What the artifact is, C(python), C(go) or C(binary); an empty string where it is none of them.
  returned: success
  type: str
go:
  description: The version of Go that its C(go.mod) asks for, or an empty string.
  returned: success
  type: str
installer:
  description: Whether it carries pip.
  returned: success
  type: bool
fault:
  description: Why the zip is no artifact, or its signature does not count, and what to do; or an empty string.
  returned: success
  type: str
"""

from pathlib import Path

from ansible.module_utils.app_fetch import told
from ansible.module_utils.app_signature import Signers
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        {
            "artifact": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "signers": {"type": "str", "default": ""},
            "revoked": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    signers = Signers(*(module.params[name] for name in ("name", "signers", "revoked")))
    module.exit_json(changed=False, **told(Path(module.params["artifact"]), signers).as_dict())


if __name__ == "__main__":
    main()
