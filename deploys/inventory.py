"""The inventory of Ansible for pyinfra: the same one, ANSIBLE_INVENTORY's or that of ansible.cfg.

Hosts carry what it takes to reach them and nothing else; `deploys.desired` resolves the other variables when they are
needed, so that no secret stands in what ``pyinfra … debug-inventory`` prints.
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
except DesiredError as error:
    raise PyinfraError(str(error)) from error

globals().update(
    {
        group: [_reached[name] for name in names if name in _reached]
        for group, names in _desired.groups.items()
        if group.isidentifier()
    }
)
