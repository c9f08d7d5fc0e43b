"""Builds a release of Python: a venv, and in it what requirements.txt names."""

from __future__ import annotations

import os

from ansible.module_utils.app_disk import remove
from ansible.module_utils.app_kind import INSTALLER
from ansible.module_utils.app_plan import BuildError, Plan, run
from ansible.module_utils.app_requirements import HASH, RequirementError, requirements
from ansible.module_utils.app_wheels import gather

NO_WHEEL = "No matching distribution found"  # so says pip, also of a package that is there, but not as a wheel


def made(_: Plan) -> list[str]:
    """The names that the build makes in a release, which no artifact may bring."""
    return ["venv"]


def build(plan: Plan) -> None:
    """Make the venv of what has been unpacked. Raises BuildError.

    Only wheels are installed, since pip runs code of all other packages while it builds them. The artifact's SHA-256
    covers the wheels that it carries; those from an index need hashes of their own. Where the plan asks for no hashes,
    a user without rights gets the wheels and builds those that are missing.
    """
    release, venv = plan.release, plan.release / "venv"
    # An artifact that carries pip needs neither the distribution's pip nor one in its venv.
    carried = sorted(release.glob(INSTALLER))
    # An artifact that carries its wheels needs no index.
    offline = (release / "wheels").is_dir()
    checked, gathered = release / ".requirements.txt", release / ".gathered"
    try:
        wanted = requirements(release / "requirements.txt", plan.require_hashes and not offline)
    except RequirementError as error:
        raise BuildError(str(error)) from error
    # pip reads what was checked, and not the file itself, which it might understand in another way.
    checked.write_text("\n".join(wanted), encoding="utf-8")
    _run(plan, plan.interpreter, "-I", "-m", "venv", *(["--without-pip"] if carried else []), str(venv))
    pip = [str(venv / "bin/python"), "-I", *([str(carried[0] / "pip")] if carried else ["-m", "pip"])]
    source = ["--require-hashes"]
    if offline:
        source = ["--no-index", "--find-links", str(release / "wheels")]
    elif wanted and not plan.require_hashes and not any(HASH.search(line) for line in wanted):
        source = ["--no-index", "--find-links", str(gather(pip, checked, gathered, _index(plan)))]
    _run(
        plan, *pip, "install", "--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check",
        "--no-compile", "--only-binary", ":all:", *source, "--requirement", str(checked),
    )  # fmt: skip
    checked.unlink()
    remove(gathered)
    # Bytecode has to be compiled now, because the service can't write here. pip would take three times as long for it.
    # With -S no .pth file of a package is run.
    _run(plan, str(venv / "bin/python"), "-IS", "-m", "compileall", "-q", str(release))


def _index(plan: Plan) -> dict[str, str]:
    """pip's settings for the index. A URL with a password must not stand on a command line, which all can read."""
    settings = {"PIP_INDEX_URL": plan.index_url, "PIP_CERT": plan.ca_bundle}
    return {name: value for name, value in settings.items() if value}


def _run(plan: Plan, *command: str) -> None:
    try:
        run(list(command), {**os.environ, **_index(plan)})
    except BuildError as error:
        if NO_WHEEL not in str(error):
            raise
        raise BuildError(
            f"{error}\nOnly wheels are installed, because building any other package would run its code as root."
        ) from error
