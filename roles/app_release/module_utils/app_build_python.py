"""Builds a release of Python: a venv, and in it what requirements.txt names."""

from __future__ import annotations

import os

from ansible.module_utils.app_plan import BuildError, Plan, run
from ansible.module_utils.app_requirements import RequirementError, requirements

NO_WHEEL = "No matching distribution found"  # so says pip, also of a package that is there, but not as a wheel


def made(_: Plan) -> list[str]:
    """The names that the build makes in a release, which no artifact may bring."""
    return ["venv"]


def build(plan: Plan) -> None:
    """Make the venv of what has been unpacked. Raises BuildError.

    Only wheels are installed, since pip runs code of all other packages while it builds them. The artifact's SHA-256
    covers the wheels that it carries; those from an index need hashes of their own.
    """
    release, venv = plan.release, plan.release / "venv"
    # An artifact that carries pip needs neither the distribution's pip nor one in its venv.
    carried = sorted(release.glob("installer/pip-*.whl"))
    # An artifact that carries its wheels needs no index.
    offline = (release / "wheels").is_dir()
    source = ["--no-index", "--find-links", str(release / "wheels")] if offline else ["--require-hashes"]
    checked = release / ".requirements.txt"
    try:
        # pip reads what was checked, and not the file itself, which it might understand in another way.
        checked.write_text("\n".join(requirements(release / "requirements.txt", not offline)), encoding="utf-8")
    except RequirementError as error:
        raise BuildError(str(error)) from error
    _run(plan, plan.interpreter, "-I", "-m", "venv", *(["--without-pip"] if carried else []), str(venv))
    pip = [str(carried[0] / "pip")] if carried else ["-m", "pip"]
    _run(
        plan, str(venv / "bin/python"), "-I", *pip, "install", "--quiet", "--no-input", "--no-cache-dir",
        "--disable-pip-version-check", "--only-binary", ":all:", *source, "--requirement", str(checked),
    )  # fmt: skip
    checked.unlink()
    # Bytecode has to be compiled now, because the service can't write here. With -S no .pth file of a package is run.
    _run(plan, str(venv / "bin/python"), "-IS", "-m", "compileall", "-q", "-x", "/venv/", str(release))


def _run(plan: Plan, *command: str) -> None:
    # A URL with a password must not stand on a command line, which every user can read.
    settings = {"PIP_INDEX_URL": plan.index_url, "PIP_CERT": plan.ca_bundle}
    try:
        run(list(command), {**os.environ, **{name: value for name, value in settings.items() if value}})
    except BuildError as error:
        if NO_WHEEL not in str(error):
            raise
        raise BuildError(
            f"{error}\nOnly wheels are installed, because building any other package would run its code as root."
        ) from error
