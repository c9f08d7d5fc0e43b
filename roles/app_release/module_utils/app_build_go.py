"""Builds a release of Go source, as nobody, in a private directory that is gone afterwards.

The same source and the same compiler make the same octets.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

from ansible.module_utils import go_version
from ansible.module_utils.app_build_binary import machine
from ansible.module_utils.app_disk import remove
from ansible.module_utils.app_kind import go_version as asked
from ansible.module_utils.app_plan import BuildError, Plan, run

# Everything that the compiler needs is below this, in the release, where the next build cleans up after a killed one.
WORKSHOP = ".build"
NOBODY = 65534  # its number on all systems, as user and as group
LONGEST = 40  # lines of what the compiler says
PROXY = re.compile(r"https?://\S+|file:///\S+")
# By these the compiler says that it can't get a module, or that go.mod or go.sum does not name it.
UNREACHABLE = re.compile(
    r"GOPROXY=off|dial tcp|reading (file|https?)://|no such host|lookup disabled|missing go\.sum entry|Get \"http|"
    r"no required module|cannot find module|unrecognized import path"
)
UNPINNED = "go.mod, go.sum and vendor/ (`go mod init`, `go mod tidy` and `go mod vendor` make them)"


def made(plan: Plan) -> list[str]:
    """The names that the build makes in a release, which no artifact may bring."""
    return [plan.name, WORKSHOP]


def build(plan: Plan) -> None:
    """Compile the main package that has been unpacked to the program ``<release>/<name>``. Raises BuildError.

    The source stays beside the program, as the runbook leaves it, because the program may read files that come with it.
    """
    _check(plan)
    workshop = plan.release / WORKSHOP
    try:
        source = _prepare(plan.release, workshop)
        _compile(plan, workshop, source)
        program = plan.release / plan.name
        _bring(workshop / "out" / plan.name, program)
        if not machine(program):
            raise BuildError(_no_main(plan, workshop, source))
        program.chmod(0o755)
        for name in ("go.mod", "go.sum"):  # what the compiler chose, where the artifact left that open
            if (source / name).exists() and not (plan.release / name).exists():
                _bring(source / name, plan.release / name)
    finally:
        remove(workshop)


def _check(plan: Plan) -> None:
    release = plan.release
    if plan.go_proxy and not PROXY.fullmatch(plan.go_proxy):
        raise BuildError(
            "the Go proxy is neither an http(s) URL nor the file:// URL of a directory, such as file:///srv/modules; "
            "correct it, or leave it out"
        )
    here = go_version.installed(plan.compiler)
    if not here:
        raise BuildError(f"{plan.compiler} does not run on this host; install Go, or correct go_runtime_systems")
    go_mod = release / "go.mod"
    wanted = asked(go_mod.read_text(encoding="utf-8", errors="replace")) if go_mod.is_file() else ""
    if go_version.older(here, wanted):
        raise BuildError(go_version.too_old(here, wanted))
    if not go_mod.is_file() and (release / "vendor").is_dir():
        raise BuildError(
            "the artifact has vendor/ but no go.mod, which says what vendor/ holds; zip it again with go.mod and go.sum"
        )


def _prepare(release: Path, workshop: Path) -> Path:
    """Make the private directory, and in it a copy of the source that the compiler may write to."""
    workshop.mkdir(mode=0o750)
    source = workshop / "source"
    shutil.copytree(
        release, source, ignore=lambda _, names: [name for name in names if name == WORKSHOP], symlinks=True
    )
    for name in ("out", "home", "tmp"):
        (workshop / name).mkdir(mode=0o700)
    if os.geteuid() == 0:
        for place, _, files in os.walk(workshop):
            for path in [Path(place), *(Path(place, name) for name in files)]:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        os.chown(workshop, 0, NOBODY)  # so that only root can rename what it takes the program from
    return source


def _compile(plan: Plan, workshop: Path, source: Path) -> None:
    flags = ["-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid="]
    if not (source / "go.mod").exists():
        _go(plan, workshop, "mod", "init", plan.name)
        _go(plan, workshop, "get", ".")
        mode = "readonly"
    elif (source / "vendor").is_dir():
        mode = "vendor"
    else:
        # With a go.sum, what it says of each module counts. Without one, the compiler writes it.
        mode = "readonly" if (source / "go.sum").exists() else "mod"
    _go(plan, workshop, "build", f"-mod={mode}", *flags, "-o", str(workshop / "out" / plan.name), ".")


def _environment(plan: Plan, workshop: Path) -> dict[str, str]:
    """What the compiler is told. It sees nothing of root's environment but the way to the network."""
    vendored = (workshop / "source" / "vendor").is_dir()
    proxy = "off" if vendored else plan.go_proxy
    passed = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "no_proxy")]
    settings = {
        "GOPROXY": proxy,  # may hold a password, so it must not stand on a command line
        # Nobody but its owner vouches for what a directory holds.
        "GOSUMDB": "off" if proxy.startswith("file:") else "",
        "SSL_CERT_FILE": plan.ca_bundle,
    }
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(workshop / "home"),
        "TMPDIR": str(workshop / "tmp"),
        "GOPATH": str(workshop / "home" / "go"),
        "GOMODCACHE": str(workshop / "home" / "modules"),
        "GOCACHE": str(workshop / "home" / "cache"),
        "GOENV": "off",
        "GOWORK": "off",
        "GO111MODULE": "on",
        "GOFLAGS": "-modcacherw",
        "GOTOOLCHAIN": "local",  # or a compiler that go.mod names would be fetched; 1.19 does not know it
        "CGO_ENABLED": "0",
        **{name: os.environ[name] for name in passed},
        **{name: value for name, value in settings.items() if value},
    }


def _go(plan: Plan, workshop: Path, *arguments: str) -> str:
    """What the compiler prints. Raises BuildError with its own lines, and with what to do where that is known."""
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    source = workshop / "source"
    try:
        printed: str = run([plan.compiler, *arguments], _environment(plan, workshop), source, umask=0o077, **nobody)
    except BuildError as error:
        raise BuildError(_said(str(error), source)) from error
    return printed


def _said(text: str, source: Path) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("go: downloading ")]
    cut = [f"… and {len(lines) - LONGEST} lines more"] if len(lines) > LONGEST else []
    said = "\n".join([*lines[:LONGEST], *cut]).replace(f"{source}/", "").replace(str(source), "the artifact")
    return f"the compiler said:\n{said}{_remedy(said, source)}"


def _remedy(said: str, source: Path) -> str:
    if "inconsistent vendoring" in said or ((source / "vendor").is_dir() and UNREACHABLE.search(said)):
        return "\nvendor/ does not hold what go.mod says. Run `go mod tidy` and `go mod vendor`, and zip it again."
    if UNREACHABLE.search(said):
        return (
            f"\nPut the modules into the artifact with {UNPINNED}, or set the Go proxy to one that has them and that "
            "this host can reach."
        )
    return ""


def _no_main(plan: Plan, workshop: Path, source: Path) -> str:
    pattern = '{{if eq .Name "main"}}{{.ImportPath}}{{end}}'
    vendored = ["-mod=vendor"] if (source / "vendor").is_dir() else []
    mains = _go(plan, workshop, "list", "-e", *vendored, "-f", pattern, "./...").split()
    found = f" Main packages stand in {', '.join(mains)}." if mains else ""
    return (
        f"the Go source at the artifact's root is no main package, and that is what the program is built from.{found} "
        "Put the one that the service is at the root, and zip it again"
    )


def _bring(path: Path, target: Path) -> None:
    """Copy what nobody has made to where only root can write.

    Whatever else runs as nobody could have put a link to one of root's files there.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != (NOBODY if os.geteuid() == 0 else os.geteuid()):
            raise BuildError(f"{path} is not what the compiler has made; see what else runs as nobody on this host")
        with target.open("xb") as copy:
            shutil.copyfileobj(file, copy)
