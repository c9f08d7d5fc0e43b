#!/usr/bin/python
"""Builds a release from its artifact, beside the live one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_release
short_description: Build a release from its artifact, beside the live one
description:
  - Unpacks an artifact that is on the host, builds what the service runs, and marks the release as complete.
  - For Python, that is a venv with what C(requirements.txt) names. Go source is compiled as nobody, in a private
    directory. A binary has to be one for this machine.
  - A release that stands as it was built is left alone. One that does not is built anew, and what stood before is put
    back where that fails.
  - Where C(signers) says who may sign the artifact, its signature is verified before anything is unpacked. It is
    beside the artifact, under that name with C(.sig) appended.
  - The artifact and its signature are removed.
options:
  artifact:
    description: Path of the zip on the host.
    type: path
    required: true
  sha256:
    description: The SHA-256 that the zip must have, in hexadecimal.
    type: str
    required: true
  release:
    description: The release's directory.
    type: path
    required: true
  kind:
    description: What the artifact is, as M(app_artifact_info) says.
    type: str
    choices: [python, go, binary]
    default: python
  name:
    description:
      - Name of the service, which is that of the program that is compiled or brought, and part of what a signature has
        to be made for. Python without a signature needs none.
    type: str
    default: ""
  interpreter:
    description: Absolute path of the interpreter that the venv is made with. Python alone needs it.
    type: str
    default: ""
  compiler:
    description: Absolute path of the compiler. Go source alone needs it.
    type: str
    default: ""
  index_url:
    description: Package index for an artifact without wheels. Empty for pip's own default.
    type: str
    default: ""
  go_proxy:
    description:
      - Where the modules of Go source without C(vendor/) come from, an http(s) URL, or the C(file://) URL of a
        directory on the host that everybody can read.
      - Empty for the compiler's own default.
    type: str
    default: ""
  ca_bundle:
    description: Path, on the host, of the CA bundle that vouches for the index or the proxy. Empty for their own.
    type: str
    default: ""
  require_hashes:
    description:
      - Whether what comes from an index needs a hash. Without hashes, the user nobody gets the wheels, and builds those
        that the index lacks.
    type: bool
    default: true
  signers:
    description: Who may sign the artifact, the text of an allowed_signers file (ssh-keygen(1)). Empty for no signature.
    type: str
    default: ""
  revoked:
    description: Public keys, one a line, that may not sign it, whatever C(signers) says.
    type: str
    default: ""
  source:
    description: What error messages call the artifact.
    type: str
    required: true
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Build a release
  app_release:
    artifact: /var/tmp/dispatch.zip
    sha256: 0d69affe422b7351fa18c44472a02542ad1421302eade9e9602a9975c5869840
    release: /app/releases/0d69affe422b-python3.11
    interpreter: /usr/bin/python3.11
    source: dist/dispatch.zip

- name: Build a release of Go source
  app_release:
    artifact: /var/tmp/dispatch.zip
    sha256: 0d69affe422b7351fa18c44472a02542ad1421302eade9e9602a9975c5869840
    release: /app/releases/0d69affe422b-go1.19
    kind: go
    name: dispatch
    compiler: /usr/bin/go
    go_proxy: file:///srv/modules
    source: dispatch-go.zip
"""

RETURN = r"""
release:
  description: The release's directory.
  returned: success
  type: str
unbuilt:
  description: Whether a package without a wheel could not be built, for which a compiler may be missing.
  returned: failure
  type: bool
"""

import os

from ansible.module_utils.app_build import BuildError, build, failure, fits, plan_of
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        {
            "artifact": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
            "release": {"type": "path", "required": True},
            "kind": {"type": "str", "choices": ["python", "go", "binary"], "default": "python"},
            "name": {"type": "str", "default": ""},
            "interpreter": {"type": "str", "default": ""},
            "compiler": {"type": "str", "default": ""},
            "index_url": {"type": "str", "default": "", "no_log": True},
            "go_proxy": {"type": "str", "default": "", "no_log": True},
            "ca_bundle": {"type": "str", "default": ""},
            "require_hashes": {"type": "bool", "default": True},
            "signers": {"type": "str", "default": ""},
            "revoked": {"type": "str", "default": ""},
            "source": {"type": "str", "required": True},
        },
        required_if=[
            ("kind", "python", ["interpreter"]),
            ("kind", "go", ["name", "compiler"]),
            ("kind", "binary", ["name"]),
        ],
        supports_check_mode=True,
    )
    plan = plan_of({name: value for name, value in module.params.items() if name != "source"})
    os.umask(0o022)
    try:
        changed = not fits(plan) if module.check_mode else build(plan)
    except (BuildError, OSError) as error:
        unbuilt = isinstance(error, BuildError) and error.unbuilt
        module.fail_json(msg=failure(module.params["source"], error), unbuilt=unbuilt)
    module.exit_json(changed=changed, release=str(plan.release))


if __name__ == "__main__":
    main()
