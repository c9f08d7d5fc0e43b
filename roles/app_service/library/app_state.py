#!/usr/bin/python
"""Says how a host differs from what is wanted of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_state
short_description: Say how a host differs from what is wanted of it
description:
  - Compares what is wanted with what is found on the host, for every step of the runbook, in one round trip.
  - Changes nothing. M(app_switch) and the other roles' modules change what this one has found.
options:
  wanted:
    description: What is wanted of the host. The filter C(app_wanted) of the role app_runbook makes it.
    type: dict
    required: true
    suboptions: &wanted
      name:
        description: Name of the service and of its unit.
        type: str
        required: true
      account:
        description: The system user, with C(name), C(comment), C(shell) and C(locked).
        type: dict
        required: true
      home:
        description: The directory of the releases, with C(path), C(owner), C(group), C(mode) and C(setype).
        type: dict
        required: true
      sha256:
        description: The SHA-256 of the artifact, in hexadecimal.
        type: str
        required: true
      signers:
        description:
          - Who may sign the artifact, the text of an allowed_signers file (ssh-keygen(1)). A release whose artifact was
            not verified by these signers is not settled. Empty where no signature is asked for.
        type: str
        default: ""
      revoked:
        description: Public keys, one a line, that may not sign it, whatever C(signers) says.
        type: str
        default: ""
      configuration:
        description: The directory that holds the settings, the credentials and, during a switch, the previous state.
        type: path
        required: true
      kind:
        description:
          - What the artifact is, C(python), C(go) or C(binary).
          - Empty for a URL whose artifact no host has fetched. A release that stands is known by its directory's name.
        type: str
        default: ""
      go:
        description: The version of Go that the artifact asks for, or an empty string.
        type: str
        default: ""
      installer:
        description: Whether the artifact is known to carry pip, so that the host needs no pip of its distribution.
        type: bool
        default: false
      kinds:
        description:
          - What is wanted where the release is of this kind, for each kind that the service runs.
          - C(systems) is the runtime of each system; see M(python_runtime_info).
          - C(packages) are packages that the service needs beside it, lists by what installs them, C(apt) or C(dnf).
          - C(files) are those that are switched together, by name; each with C(path), C(mode) and C(content).
          - C(check) is a command of the release, relative to it, that has to pass before a switch. Where C(check_zip)
            is the path of a zip on the host, these are arguments of that program instead, which the host's Python runs.
          - C(ready_url) is an http URL on the host that answers 200 once the service is ready.
          - C(ready_log) is a regular expression of Python's that a line of the service's journal matches once it is
            ready. It counts in the proof of a start alone, because the journal may have been rotated since.
          - C(faults) are the reasons, a sentence each, why no release of this kind may go live.
        type: dict
        required: true
      credentials:
        description: Base64 of each secret, by the kind of release and the name of the secret's file.
        type: dict
        default: {}
      start_seconds:
        description: Seconds the service may take to be ready.
        type: float
        default: 60
      stop_seconds:
        description: Seconds systemd gives the service to end.
        type: float
        default: 30
      releases_kept:
        description: Releases to keep, the live one included.
        type: int
        default: 3
      drain:
        description:
          - Before one of the C(settings), a list of names, changes, the live release's command line runs with the
            arguments C(command).
        type: dict
attributes:
  check_mode:
    support: full
author: RoboShop
"""

EXAMPLES = r"""
- name: Ask the host how it differs from what is wanted
  app_state:
    wanted: "{{ dispatch_wanted.host }}"
  register: found
"""

RETURN = r"""
changes:
  description: In what the host differs, a sentence each. No secrets.
  returned: success
  type: list
  elements: str
settled:
  description: Whether what is found equals what is wanted.
  returned: success
  type: bool
serving:
  description: Whether a release is live, or a service of that name runs that was set up by hand.
  returned: success
  type: bool
live:
  description: The live release's directory, or an empty string.
  returned: success
  type: str
kind:
  description: What the artifact is, or an empty string where that can't be told before it has been fetched.
  returned: success
  type: str
release:
  description: The directory of the release that is wanted, or an empty string where its kind can't be told yet.
  returned: success
  type: str
runtime:
  description: The host's C(interpreter), C(manager) and C(packages), and those of them that are C(missing).
  returned: success
  type: dict
steps:
  description: Whether C(runtime), C(account), C(release), C(drain) and C(service) have something to do.
  returned: success
  type: dict
"""

from ansible.module_utils.app_arguments import WANTED
from ansible.module_utils.app_survey import REFUSALS, compare
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule({"wanted": WANTED}, supports_check_mode=True)
    try:
        found = compare(module.params["wanted"])
    except REFUSALS as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
