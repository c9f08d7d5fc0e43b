"""The steps of the runbook as pyinfra operations.

Each takes what is wanted, mostly as the arguments of the role's own task, and what `facts.Inspection` has found. It
yields commands where the two differ, and asks the host nothing more.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Generator

from pyinfra.api import FileUploadCommand, QuoteString, StringCommand, operation
from pyinfra.operations import dnf, files

from deploys.facts import PROGRAM
from deploys.project import Values

Commands = Generator[StringCommand | FileUploadCommand, None, None]

# Tells, by its exit code, whether an inspection has found the service ready; of one that isn't, why.
REASON = 'import json, sys; sys.exit(json.load(sys.stdin)["ready"] or 0)'
APT_OPTIONS = ["--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]


@operation()
def packages(names: list[str], manager: str, installed: list[str]) -> Commands:
    """Install what is missing of a distribution's packages, without what they only recommend."""
    missing = [name for name in names if name not in installed]
    if not missing:
        return
    if manager == "apt":
        install = shlex.join(["apt-get", "install", *APT_OPTIONS, *missing])
        # The index of a fresh image is empty or out of date.
        yield StringCommand(f"export DEBIAN_FRONTEND=noninteractive; {install} || {{ apt-get update && {install}; }}")
    else:
        yield from dnf.packages._inner(packages=missing, extra_install_args="--setopt=install_weak_deps=False")


@operation()
def account(wanted: Values, found: Values | None) -> Commands:
    """Create a system user, or set its entry right, but for the home of one that exists.

    `wanted` is as for the module ansible.builtin.user.
    """
    if found is None:
        entry = ["--comment", wanted["comment"], "--home-dir", wanted["home"], "--shell", wanted["shell"]]
        yield _command("useradd", "--system", "--no-create-home", *entry, wanted["name"])
        return
    unlike = [key for key in ("comment", "shell") if found[key] != wanted[key]]
    entry = [word for key in unlike for word in (f"--{key}", wanted[key])] + ([] if found["locked"] else ["--lock"])
    if entry:
        yield _command("usermod", *entry, wanted["name"])


@operation()
def directory(wanted: Values, unlike: list[str]) -> Commands:
    """Create a directory, or set its owner and mode right; `wanted` as for the module ansible.builtin.file."""
    if unlike:
        ownership = ["--owner", wanted["owner"], "--group", wanted["group"], "--mode", wanted["mode"]]
        yield _command("install", "--directory", *ownership, wanted["path"])
    if "setype" in unlike or ("setype" in wanted and "missing" in unlike):
        label = _command("chcon", "--type", wanted["setype"], wanted["path"])
        yield StringCommand("[ ! -e /sys/fs/selinux/enforce ] ||", label)


@operation()
def release(stands: bool, plan: Callable[[], tuple[Values, Values, str]]) -> Commands:
    """Bring an artifact to the host and build its release, by the role's own script, unless it stands.

    `plan` gives the artifact, as `src`, a path on the controller or a URL, its `sha256`, and `dest`, a path only root
    can write to; the script's `argv` and `stdin`; and what to say after its output where it fails.
    """
    if stands:
        return
    artifact, build, failure = plan()
    if artifact["url"]:
        yield from files.download._inner(
            src=artifact["src"], dest=artifact["dest"], sha256sum=artifact["sha256"], mode="600"
        )
    else:
        yield FileUploadCommand(artifact["src"], artifact["dest"])
    script = f"{shlex.join(build['argv'])} || {{ code=$?; echo {shlex.quote(failure)} >&2; exit $code; }}"
    yield StringCommand("sh", "-c", QuoteString(script), _stdin=build["stdin"])


@operation()
def drain(argv: list[str]) -> Commands:
    """Wait, by the command `argv`, until no order is left where the live service consumes."""
    yield _command(*argv)


@operation()
def activation(differs: bool, plan: Callable[[], Values]) -> Commands:
    """Switch to a release and its settings by the role's own program, which proves them or puts back what was.

    `plan` gives the program's `argv` and its `stdin`, which holds secrets.
    """
    if not differs:
        return
    activate = plan()
    yield StringCommand(shlex.join(activate["argv"]), _stdin=activate["stdin"])


@operation()
def service(runs: bool, plan: Callable[[], tuple[Values, str]]) -> Commands:
    """Enable and start a unit that does not run as it is to, and wait until it is ready.

    `plan` gives the question by which `facts.PROGRAM` waits for that, and what to say, before the reason and the end of
    the journal, where it does not come to it in time.
    """
    if runs:
        return
    question, failure = plan()
    unit = shlex.quote(question["unit"])
    script = f"systemctl enable --quiet {unit} && systemctl start --no-block {unit} || exit\n"
    script += f"python3 -I -S -c {shlex.quote(PROGRAM.read_text())} | python3 -I -S -c {shlex.quote(REASON)} && exit\n"
    script += f"echo {shlex.quote(failure)} >&2\n"
    script += f"journalctl --unit {unit} --lines 15 --output cat --no-pager >&2; exit 1"
    yield StringCommand("sh", "-c", QuoteString(script), _stdin=json.dumps(question) + "\n")


def _command(*words: str) -> StringCommand:
    return StringCommand(shlex.join(words))
