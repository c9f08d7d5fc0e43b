"""Ansible's inventory for pyinfra: the one that ANSIBLE_INVENTORY or else ansible.cfg names.

A host's data says how to reach it and nothing else, and hides the passwords among it, so that ``pyinfra …
debug-inventory`` prints no secret; `deploys.desired` resolves the other variables when they are needed.
"""

from pyinfra import config
from pyinfra.api.exceptions import PyinfraError

from deploys.connection import reach
from deploys.desired import GROUP, DesiredError, load

# A host that can't be reached, or a step that fails on one, stops the run.
config.FAIL_PERCENT = 0

try:
    _desired = load()
    _reached = {name: (name, reach(_desired, name)) for name in _desired.groups.get(GROUP, [])}
    if not _reached:  # pyinfra would do nothing, which looks like success
        raise DesiredError(
            f"The inventory has no host in the group {GROUP}. Add the hosts that are to run Dispatch to it; on EC2, "
            "tag their instances Project=roboshop and Role=dispatch."
        )
except DesiredError as error:
    raise PyinfraError(str(error)) from error

globals().update(
    {
        group: [_reached[name] for name in names if name in _reached]
        for group, names in _desired.groups.items()
        if group.isidentifier()
    }
)
