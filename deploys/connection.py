"""How pyinfra reaches a host the way Ansible does, with its host key checked."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TextIO

from pyinfra import logger
from pyinfra.connectors import util

from deploys.desired import Desired, DesiredError, Values
from deploys.hidden import Hidden

# This run's temporary files; the directory is removed when the process ends.
_DIRECTORY = tempfile.TemporaryDirectory(prefix="pyinfra-ssh-")


def _no_password(prompt: str = "", stream: TextIO | None = None) -> str:
    del stream
    logger.error(
        f"{prompt.removesuffix('sudo password: ')}sudo asks for a password, which pyinfra would give it on the host's "
        "command line, where all its users can read it. Let it ask for none, or provision this host by Ansible."
    )
    return ""  # with which sudo is tried without one, and fails


# Where sudo refuses to work without a password, pyinfra would ask for one at the terminal.
util.getpass = _no_password


def reach(desired: Desired, name: str) -> Values:
    """The data of pyinfra's ssh connector, and of sudo, for a host of the inventory.

    OpenSSH itself works out what the options of Ansible's ssh plugin and the user's ssh_config(5) add up to. Raises
    DesiredError where it can't, or where pyinfra could not use what the inventory says.
    """
    ssh, escalates = desired.ssh_options(name), desired.escalates(name)
    if name.startswith("@"):
        raise DesiredError(
            f"{name}: pyinfra takes a name that starts with @ for a way to connect. Name the host without it; on EC2, "
            "change its tag Name."
        )
    if escalates and desired.sudo_options(name)["become_pass"]:
        raise DesiredError(
            f"{name}: ansible_become_password is set, and pyinfra would give it to sudo on the host's command line, "
            "where all its users can read it. Let sudo ask the login for no password, or provision this host by "
            "Ansible."
        )
    options = [word for kind in ("ssh", "ssh_common", "ssh_extra") for word in shlex.split(ssh[f"{kind}_args"])]
    for option, value in (("-p", ssh["port"]), ("-l", ssh["remote_user"])):
        options += [option, str(value)] if value else []
    settings = _settings(name, [ssh["ssh_executable"], *options, "-G", ssh["host"]])
    strict = settings["stricthostkeychecking"][0] if ssh["host_key_checking"] else "no"
    data = {
        "ssh_hostname": settings["hostname"][0],
        "ssh_port": int(settings["port"][0]),
        "ssh_user": settings["user"][0],
        "ssh_config_file": _configuration(settings, options),
        # Nobody is there to answer `ask`, so it becomes `yes`: an unknown host key is refused.
        "ssh_strict_host_key_checking": {"no": "no", "false": "no", "accept-new": "accept-new"}.get(strict, "yes"),
        "_sudo": escalates,
    }
    if settings.get("identityagent") == ["none"]:
        data["ssh_allow_agent"] = False
    if ssh["private_key_file"]:
        data["ssh_key"] = str(Path(ssh["private_key_file"]).expanduser())
    secrets = {"ssh_key_password": ssh["private_key_passphrase"], "ssh_password": ssh["password"]}
    return data | {key: Hidden(value) for key, value in secrets.items() if value}


def _settings(name: str, command: list[str]) -> dict[str, list[str]]:
    """What ``ssh -G`` prints: the values of each option, by its name in lower case."""
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if said.returncode:
        raise DesiredError(f"{name}: `{shlex.join(command)}` failed: {said.stderr.strip()} Correct its ssh arguments.")
    settings = defaultdict(list)
    for line in said.stdout.splitlines():
        key, _, value = line.partition(" ")
        settings[key].append(value)
    return settings


def _configuration(settings: dict[str, list[str]], options: list[str]) -> str:
    """Write an ssh_config(5) with the options that pyinfra reads only from such a file; return its path."""
    lines = ["Host *", f"UserKnownHostsFile {_known_hosts(settings)}"]
    # Where there is no key of one's own, ssh(1) names its defaults, and paramiko fails on a file that is not there.
    keys = [file for file in settings["identityfile"] if os.access(Path(file).expanduser(), os.R_OK)]
    lines += [f"IdentityFile {file}" for file in keys]
    lines += [f"IdentityAgent {agent}" for agent in settings["identityagent"] if agent not in ("none", "SSH_AUTH_SOCK")]
    lines += [f"ProxyCommand {command}" for command in settings["proxycommand"]]
    for jump in settings["proxyjump"]:
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("-F")
        file = parser.parse_known_args(options)[0].F
        *before, last = jump.split(",")
        command = ["ssh", *(["-F", file] if file else []), *(["-J", ",".join(before)] if before else [])]
        command += ["-W", f"[{settings['hostname'][0]}]:{settings['port'][0]}", f"ssh://{last}"]
        lines.append(f"ProxyCommand {shlex.join(command)}")
    return _written("\n".join(lines) + "\n")


def _known_hosts(settings: dict[str, list[str]]) -> str:
    """Write the host keys of all known_hosts files into one, whose path has no space; return that path."""
    values = [settings[f"{kind}knownhostsfile"][0] for kind in ("user", "global")]
    files = [file for value in values for file in _files(value.split(" "))]
    return _written("".join(file.read_text(errors="replace") for file in files))


def _written(text: str) -> str:
    """Write a file of this run; return its path, which the host's name, that may be anything, has no part in."""
    with tempfile.NamedTemporaryFile("w", dir=_DIRECTORY.name, encoding="utf-8", delete=False) as file:
        file.write(text)
    return file.name


def _files(words: list[str]) -> list[Path]:
    """The files that exist among paths which ``ssh -G`` has joined by spaces, and which may have spaces themselves."""
    for end in range(len(words), 0, -1):
        file = Path(" ".join(words[:end])).expanduser()
        if file.is_file():
            return [file, *_files(words[end:])]
    return _files(words[1:]) if words else []
