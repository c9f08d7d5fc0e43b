"""What Ansible knows: the hosts of its inventory, how they are reached, and what is wanted of each.

What is wanted stands once, in the role `dispatch`, which resolves to one document, `dispatch_wanted`. This module asks
Ansible's Python API for it, so that groups, host variables, vaults, lookups and defaults mean the same to both engines.
Nothing here connects to a host.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible import constants
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play import Play
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import become_loader, connection_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.vars.manager import VariableManager

ROOT = Path(__file__).resolve().parents[1]
ROLE = ROOT / "roles" / "dispatch"
GROUP = "dispatch"
Values = dict[str, Any]

init_plugin_loader()


class DesiredError(Exception):
    """A value is missing or wrong; the message names it and says what to do."""


@contextlib.contextmanager
def _as_desired_error() -> Iterator[None]:
    """Turn Ansible's errors about what it can't read or resolve into a DesiredError."""
    try:
        yield
    except AnsibleError as error:
        raise DesiredError(str(error)) from error


class Desired:
    """An Ansible inventory, and what the role `dispatch` makes of it.

    `sources` are what ``ansible-playbook -i`` takes; without them it is what ANSIBLE_INVENTORY or ansible.cfg names.
    Vault passwords come from where Ansible takes them, such as ANSIBLE_VAULT_PASSWORD_FILE. Raises DesiredError where
    the inventory can't be read.
    """

    def __init__(self, sources: list[str] | None = None) -> None:
        self.loader = DataLoader()
        # Relative paths mean the same as in a play.
        self.loader.set_basedir(str(ROOT / "playbooks"))
        with _as_desired_error():
            self.loader.set_vault_secrets(_vault_secrets())
            self.inventory = InventoryManager(loader=self.loader, sources=sources or constants.DEFAULT_HOST_LIST)
            self.variables = VariableManager(loader=self.loader, inventory=self.inventory)
            play = {"hosts": GROUP, "roles": [GROUP], "gather_facts": False}
            self.play = Play.load(play, variable_manager=self.variables, loader=self.loader)

    @property
    def groups(self) -> dict[str, list[str]]:
        """The names of the hosts, by group."""
        return {name: list(hosts) for name, hosts in self.inventory.get_groups_dict().items()}

    def wanted(self, name: str, extra: Mapping[str, object]) -> Values:
        """The document of what is wanted of a host; `extra` outranks all that stands in the inventory.

        Raises DesiredError, in the role's own words, where a value can't be right.
        """
        self.variables.extra_vars.update(extra)
        with _as_desired_error():
            templar = self.templar(name)
            variables = templar.available_variables
            options = _options()
            values = {option: templar.template(variables[option]) for option in options if option in variables}
            wrong = ArgumentSpecValidator(options).validate(values).error_messages
            if wrong:
                raise DesiredError("Validation of arguments failed:\n" + "\n".join(wrong))
            wanted: Values = templar.template(trust_as_template("{{ dispatch_wanted }}"))
        faults = wanted["faults"] + wanted.get("artifact_faults", [])
        if faults:
            raise DesiredError("\n".join(faults))
        return wanted

    def ssh_options(self, name: str) -> Values:
        """The options of Ansible's ssh plugin for a host. Raises DesiredError where it is not reached over SSH."""
        given = self.plugin_variables(name)
        plugin = given.get("ansible_connection", constants.DEFAULT_TRANSPORT)
        if plugin not in ("ssh", "smart", "ansible.builtin.ssh"):
            raise DesiredError(f"{name}: ansible_connection is {plugin}, but pyinfra takes ssh alone; set it to ssh.")
        ssh = connection_loader.get("ansible.builtin.ssh", PlayContext(), None)
        ssh.set_options(var_options=given)
        return dict(ssh.get_options())

    def escalates(self, name: str) -> bool:
        """Whether a login on the host has to become root. Raises DesiredError where it becomes that by other means."""
        given = self.plugin_variables(name)
        method = given.get("ansible_become_method", constants.DEFAULT_BECOME_METHOD)
        user = given.get("ansible_become_user") or "root"
        escalates: bool = boolean(given.get("ansible_become", True))
        if escalates and (method not in ("sudo", "ansible.builtin.sudo") or user != "root"):
            raise DesiredError(
                f"{name}: ansible_become_method is {method} and ansible_become_user {user}, but pyinfra becomes root "
                "by sudo alone; set ansible_become: false where the login is root's, or provision this host by Ansible."
            )
        return escalates

    def sudo_options(self, name: str) -> Values:
        """The options of Ansible's sudo plugin for a host."""
        sudo = become_loader.get("ansible.builtin.sudo")
        sudo.set_options(var_options=self.plugin_variables(name))
        return dict(sudo.get_options())

    def plugin_variables(self, name: str) -> Values:
        """The variables of a host that plugins take their options from."""
        with _as_desired_error():
            templar = self.templar(name)
            variables = templar.available_variables
            keys = [key for key in variables if key.startswith("ansible_") or key == "inventory_hostname"]
            return {key: templar.template(variables[key]) for key in keys}

    def templar(self, name: str) -> Templar:
        """What resolves the variables of a host, as the role `dispatch` sees them."""
        variables = self.variables.get_vars(play=self.play, host=self.inventory.get_host(name))
        return Templar(loader=self.loader, variables={**variables, "role_path": str(ROLE)})


@functools.cache
def _options() -> Values:
    """The options that the role specifies, by name."""
    specification = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    return dict(specification["argument_specs"]["main"]["options"])


@functools.cache
def _vault_secrets() -> Any:
    # Cached, because Ansible keeps the vault's identities for the whole process.
    identities, ask = list(constants.DEFAULT_VAULT_IDENTITY_LIST), constants.DEFAULT_ASK_VAULT_PASS
    if not (identities or ask or constants.DEFAULT_VAULT_PASSWORD_FILE):
        return []
    from ansible.cli import CLI  # slow: this import takes as long as the rest of Ansible used here

    return CLI.setup_vault_secrets(DataLoader(), vault_ids=identities, ask_vault_pass=ask, auto_prompt=False)


@functools.cache
def load() -> Desired:
    """The inventory, which is read once a run."""
    return Desired()
