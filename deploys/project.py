"""The project as Ansible sees it: the hosts of its inventory, and the roles' tasks with every variable resolved.

What is to be on a host is said once, in the roles. This module asks Ansible's own Python API for it, so that groups,
host variables, vaults, lookups and defaults mean the same to both engines. Nothing here connects to a host.
"""

from __future__ import annotations

import contextlib
import functools
import runpy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.inventory.host import Host
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.block import Block
from ansible.playbook.helpers import load_list_of_blocks
from ansible.playbook.play import Play
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import become_loader, connection_loader, init_plugin_loader
from ansible.template import Templar
from ansible.vars.manager import VariableManager

ROOT = Path(__file__).resolve().parents[1]
GROUP = "dispatch"
INCLUDE = "ansible.builtin.include_tasks"
FACT = "ansible.builtin.set_fact"
OS_RELEASE = "/etc/os-release"
ASKED = "ansible.builtin.raw"  # asks a host which system it is, before all else
Values = dict[str, Any]

init_plugin_loader()


class ProjectError(Exception):
    """A value is missing or wrong; the message names it and says what to do."""


@contextlib.contextmanager
def _as_project_error() -> Iterator[None]:
    """What Ansible can't read or resolve is a ProjectError."""
    try:
        yield
    except AnsibleError as error:
        raise ProjectError(str(error)) from error


class Project:
    """An Ansible inventory, and the role `dispatch`.

    `sources` are what ``ansible-playbook -i`` takes; without them it is what ANSIBLE_INVENTORY or ansible.cfg names.
    Vault passwords come from where Ansible takes them, such as ANSIBLE_VAULT_PASSWORD_FILE. Raises ProjectError where
    the inventory can't be read.
    """

    def __init__(self, sources: list[str] | None = None) -> None:
        self.loader = DataLoader()
        # Relative paths mean the same as in a play.
        self.loader.set_basedir(str(ROOT / "playbooks"))
        with _as_project_error():
            self.loader.set_vault_secrets(_vault_secrets())
            self._inventory = InventoryManager(loader=self.loader, sources=sources or constants.DEFAULT_HOST_LIST)
        self.variables = VariableManager(loader=self.loader, inventory=self._inventory)
        content = {
            "hosts": GROUP,
            "become": True,
            "gather_facts": False,
            "roles": ["dispatch"],
            "tasks": [{"import_role": {"name": "dispatch", "tasks_from": "preflight"}}],
        }
        self.play = Play.load(content, variable_manager=self.variables, loader=self.loader)
        tasks = list(_flat(self.play.tasks))
        asked = [task.action for task in tasks].index(ASKED)
        # The checks before a host is asked anything, and those of its answer.
        self.checks = tasks[:asked], tasks[asked:]
        imported = list(_flat(self.play.roles[0].compile(play=self.play)))
        self._tasks = {(task._role.get_name(), task.name): task for task in imported}
        self._first = {task._role.get_name(): task for task in reversed(imported)}

    @property
    def groups(self) -> dict[str, list[str]]:
        """The names of the hosts, by group."""
        return {name: list(hosts) for name, hosts in self._inventory.get_groups_dict().items()}

    def host(self, name: str, extra: Mapping[str, object]) -> Target:
        """The role as it applies to a host of the inventory; `extra` outranks all that stands there."""
        self.variables.extra_vars.update(extra)
        return Target(self, self._host(name))

    def ssh_options(self, name: str) -> Values:
        """The options of Ansible's ssh plugin for a host. Raises ProjectError where it is not reached over SSH."""
        plugin = self._given(name, ("ansible_connection",)).get("ansible_connection", constants.DEFAULT_TRANSPORT)
        if plugin not in ("ssh", "smart", "ansible.builtin.ssh"):
            raise ProjectError(f"{name}: ansible_connection is {plugin}, but pyinfra takes ssh alone; set it to ssh.")
        ssh = connection_loader.get("ansible.builtin.ssh", PlayContext(), None)
        ssh.set_options(var_options=self._given(name, constants.config.get_plugin_vars("connection", ssh._load_name)))
        return dict(ssh.get_options())

    def sudo_options(self, name: str) -> Values:
        """The options of Ansible's sudo plugin for a host."""
        sudo = become_loader.get("ansible.builtin.sudo")
        sudo.set_options(var_options=self._given(name, constants.config.get_plugin_vars("become", sudo._load_name)))
        return dict(sudo.get_options())

    def task(self, role: str, name: str) -> Task:
        """A task of a role, by its name."""
        if (role, name) not in self._tasks:
            for task in [task for (of, _), task in self._tasks.items() if of == role]:
                self._include(task)
        return self._tasks[role, name]

    def role_task(self, role: str) -> Task:
        """Some task of a role: all of a role's tasks see the same variables."""
        return self._first[role]

    def _include(self, task: Task) -> None:
        """Read the tasks of the file that a task includes while a play runs, and of those that these include."""
        if task.action != INCLUDE or "{{" in task.args["_raw_params"]:
            return
        path = Path(task._role._role_path, "tasks", task.args["_raw_params"])
        blocks = load_list_of_blocks(
            self.loader.load_from_file(str(path), trusted_as_template=True),
            play=self.play,
            parent_block=task.copy().build_parent_block(),
            role=task._role,
            use_handlers=False,
            variable_manager=self.variables,
            loader=self.loader,
        )
        for included in _flat(blocks):
            self._tasks.setdefault((included._role.get_name(), included.name), included)
            self._include(included)

    def _given(self, name: str, keys: Iterable[str]) -> Values:
        with _as_project_error():
            variables = self.variables.get_vars(play=self.play, host=self._host(name))
            templar = Templar(loader=self.loader, variables=variables)
            return {key: templar.template(variables[key]) for key in keys if key in variables}

    def _host(self, name: str) -> Host:
        return self._inventory.get_host(name)


def _flat(blocks: Iterable[Block | Task]) -> Iterator[Task]:
    for item in blocks:
        if isinstance(item, Block):
            yield from _flat([*item.block, *item.rescue])
        else:
            yield item


@functools.cache
def _vault_secrets() -> Any:
    # Once: Ansible keeps them for the whole process.
    identities, ask = list(constants.DEFAULT_VAULT_IDENTITY_LIST), constants.DEFAULT_ASK_VAULT_PASS
    if not (identities or ask or constants.DEFAULT_VAULT_PASSWORD_FILE):
        return []
    from ansible.cli import CLI  # takes as long as all the rest of Ansible that is needed here

    return CLI.setup_vault_secrets(DataLoader(), vault_ids=identities, ask_vault_pass=ask, auto_prompt=False)


@functools.cache
def load() -> Project:
    """The project; read once, for the inventory and the deploy of one run."""
    return Project()


class Target:
    """The role `dispatch` on one host."""

    def __init__(self, project: Project, host: Host) -> None:
        self._project = project
        self._host = host
        self._registered: Values = {"ansible_check_mode": True}  # nothing is fetched while values are checked
        self._seen: dict[str, Values] = {}  # variables, by the task or the block that they are the same for

    def value(self, role: str, name: str, **registered: object) -> Any:
        """A variable as the tasks of a role see it; `registered` outrank all variables it refers to."""
        with _as_project_error():
            templar = self._templar(self._project.role_task(role), registered)
            return templar.template(templar.available_variables[name])

    def arguments(self, role: str, task_name: str, **registered: object) -> list[Values]:
        """The arguments of a role's task, once for every item of its loop; `registered` are results it refers to.

        Raises ProjectError where a value can't be resolved.
        """
        task = self._project.task(role, task_name)
        with _as_project_error():
            templar = self._templar(task, registered)
            if task.loop is None:
                return [templar.template(task.args)]
            items = templar.template(task.loop)
            return [self._templar(task, {**registered, "item": item}).template(task.args) for item in items]

    def check_settings(self) -> None:
        """Run the checks of the role's preflight that need nothing of the host.

        Raises ProjectError with what the first one that fails says.
        """
        self._check(self._project.checks[0])

    def check(self, found: Values) -> None:
        """Run the checks of the role's preflight on `found`, what the host has answered. Raises ProjectError, too."""
        self._registered["__python_runtime_release"] = {"stdout": found["texts"][OS_RELEASE]}
        self._registered["__app_service_found"] = found
        self._check(self._project.checks[1])

    def _check(self, tasks: list[Task]) -> None:
        with _as_project_error():
            for task in tasks:
                if task.action == FACT and self._applies(task):
                    for name, value in task.args.items():
                        self._registered[name] = self._fact(task, name, value)
                elif task.action in CHECKS and self._applies(task):
                    CHECKS[task.action](task.args, self._templar(task))

    def _fact(self, task: Task, name: str, value: object) -> object:
        if name == "__app_release_local":  # the same program, without starting it for every host
            return _artifact(self.value("app_release", "__app_release_source"))
        return self._templar(task).template(value)

    def _applies(self, task: Task) -> bool:
        templar = self._templar(task)
        return all(templar.evaluate_conditional(condition) for condition in task.when)

    def _templar(self, task: Task, registered: Mapping[str, object] | None = None) -> Templar:
        key = task._uuid if task.vars else task._parent._uuid
        if key not in self._seen:
            self._seen[key] = self._project.variables.get_vars(play=self._project.play, host=self._host, task=task)
        variables = {**self._seen[key], **self._registered, **(registered or {})}
        return Templar(loader=self._project.loader, variables=variables)


def _assert(arguments: Values, templar: Templar) -> None:
    conditions = arguments["that"] if isinstance(arguments["that"], list) else [arguments["that"]]
    if not all(templar.evaluate_conditional(condition) for condition in conditions):
        raise ProjectError(templar.template(arguments["fail_msg"]))


def _validate(arguments: Values, templar: Templar) -> None:
    specification = arguments["argument_spec"]
    variables = templar.available_variables
    values = {name: templar.template(variables[name]) for name in specification if name in variables}
    wrong = ArgumentSpecValidator(specification).validate(values).error_messages
    if wrong:
        raise ProjectError("Validation of arguments failed:\n" + "\n".join(wrong))


# The actions that look at values, on the controller. What every other one does is for the engine to do.
CHECKS = {"ansible.builtin.assert": _assert, "ansible.builtin.validate_argument_spec": _validate}


@functools.cache
def _artifact(path: str) -> Values:
    """What the role's own program says of an artifact on the controller."""
    return dict(runpy.run_path(str(ROOT / "roles" / "app_release" / "files" / "artifact.py"))["describe"](path))
