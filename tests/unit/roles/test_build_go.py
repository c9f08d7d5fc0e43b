"""Go source becomes a program by a compiler that has no rights, and leaves nothing else behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from ansible.module_utils import app_build, app_build_go, app_releases, go_version

GO = shutil.which("go") or ""
needs_go = pytest.mark.skipif(not GO, reason="there is no Go compiler on this machine; install golang-go")
# Without an import, not even the standard library has to be compiled.
MAIN = 'package main\n\nfunc main() { println("hello") }\n'
MODULE = "module dispatch\n\ngo 1.18\n"
NEEDS = MODULE + "\nrequire example.com/thing v1.0.0\n"
USES = 'package main\n\nimport "example.com/thing"\n\nfunc main() { println(thing.Name) }\n'
THING = 'package thing\n\nconst Name = "thing"\n'
# Enough of a compiler: it notes who runs it, by what environment and with what arguments, and makes an ELF file.
COMPILER = """#!/bin/sh
[ "$1" = version ] && { echo "go version go${GO_VERSION:-1.19.8} linux/amd64"; exit; }
{ echo "$(id -u) $(id -g) $(id -G)|$*|$(pwd)"; env; } >> "$(dirname "$0")/log"
for last; do [ "$before" = -o ] && cp "$(dirname "$0")/elf" "$last"; before=$last; done
exit 0
"""


class Workshop:
    """A directory for releases that nobody can look into, as on a host."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.releases = root / "app/releases"
        self.releases.mkdir(parents=True)
        self.release = self.releases / "0d69affe422b-go1.19"
        self.log = root / "log"
        monkeypatch.setattr(app_build, "LOCKS", root)
        # Who is not root can't give its files away.
        monkeypatch.setattr(app_build, "ROOT", os.geteuid())

    def build(self, files: Mapping[str, str], compiler: str = GO, **options: str) -> bool:
        artifact = self.root / "artifact.zip"
        with zipfile.ZipFile(artifact, "w") as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        sha256 = hashlib.sha256(artifact.read_bytes()).hexdigest()
        plan = app_build.Plan(artifact, sha256, self.release, kind="go", name="dispatch", compiler=compiler, **options)
        return bool(app_build.build(plan))

    def refused(self, files: Mapping[str, str], **options: str) -> str:
        with pytest.raises(app_build.BuildError) as refused:
            self.build(files, **options)
        assert list(self.releases.iterdir()) == []
        return str(refused.value)

    def fake(self) -> str:
        """A compiler that tells what it is asked."""
        compiler = self.root / "go"
        compiler.write_text(COMPILER)
        compiler.chmod(0o755)
        (self.root / "elf").write_bytes(Path("/bin/true").read_bytes())
        self.log.touch()
        self.log.chmod(0o666)
        return str(compiler)


@pytest.fixture(scope="module")
def cache() -> Iterator[Path]:
    """What the compiler has made of Go's own packages, so that not every test has to wait for that."""
    root = Path(tempfile.mkdtemp(dir="/var/tmp"))
    root.chmod(0o777)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def quick(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = app_build_go._environment
    monkeypatch.setattr(app_build_go, "_environment", lambda *told: {**environment(*told), "GOCACHE": str(cache)})


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    # The compiler runs as nobody, who can't pass through pytest's own directory.
    root = Path(tempfile.mkdtemp(dir="/var/tmp"))
    root.chmod(0o755)
    yield Workshop(root, monkeypatch)
    shutil.rmtree(root)


def proxy(root: Path) -> str:
    """The URL of a directory that has one module, example.com/thing v1.0.0."""
    versions = root / "modules/example.com/thing/@v"
    versions.mkdir(parents=True)
    (versions / "list").write_text("v1.0.0\n")
    (versions / "v1.0.0.info").write_text('{"Version": "v1.0.0"}')
    (versions / "v1.0.0.mod").write_text("module example.com/thing\n")
    with zipfile.ZipFile(versions / "v1.0.0.zip", "w") as archive:
        archive.writestr("example.com/thing@v1.0.0/thing.go", THING)
        archive.writestr("example.com/thing@v1.0.0/go.mod", "module example.com/thing\n")
    return f"file://{root}/modules"


@needs_go
def test_source_becomes_a_program_of_root_s_and_the_same_one_each_time(
    workshop: Workshop, request: pytest.FixtureRequest
) -> None:
    files = {"main.go": MAIN, "go.mod": MODULE, "static/page.html": "read at run time"}
    assert workshop.build(files)
    program = workshop.release / "dispatch"
    told = subprocess.run([program], capture_output=True, text=True, check=True)
    assert told.stderr == "hello\n"
    found = program.stat()
    assert (found.st_uid, found.st_mode & 0o777) == (os.geteuid(), 0o755)
    names = {path.name for path in workshop.release.iterdir()}
    assert names == {"dispatch", "main.go", "go.mod", "static", ".complete"}
    assert app_releases.stands(workshop.release)
    first = program.read_bytes()
    request.getfixturevalue("quick")  # the second build shares nothing with the first
    workshop.release = workshop.releases / "another"
    assert workshop.build(files)
    assert (workshop.release / "dispatch").read_bytes() == first


@needs_go
@pytest.mark.usefixtures("quick")
def test_source_without_a_go_mod_gets_one_and_its_modules_from_the_proxy(workshop: Workshop) -> None:
    assert workshop.build({"main.go": USES}, go_proxy=proxy(workshop.root))
    assert "example.com/thing v1.0.0" in (workshop.release / "go.mod").read_text()
    assert "example.com/thing v1.0.0 h1:" in (workshop.release / "go.sum").read_text()
    assert not (workshop.release / ".build").exists()


@needs_go
@pytest.mark.usefixtures("quick")
def test_what_go_sum_says_of_a_module_counts(workshop: Workshop) -> None:
    other = "example.com/thing v1.0.0 h1:" + "A" * 43 + "=\nexample.com/thing v1.0.0/go.mod h1:" + "A" * 43 + "=\n"
    said = workshop.refused({"main.go": USES, "go.mod": NEEDS, "go.sum": other}, go_proxy=proxy(workshop.root))
    assert "example.com/thing@v1.0.0" in said
    assert "checksum mismatch" in said


@needs_go
@pytest.mark.usefixtures("quick")
def test_a_vendor_directory_needs_no_network(workshop: Workshop) -> None:
    vendored = {
        "main.go": USES,
        "go.mod": NEEDS,
        "vendor/example.com/thing/thing.go": THING,
        "vendor/modules.txt": "# example.com/thing v1.0.0\n## explicit\nexample.com/thing\n",
    }
    assert workshop.build(vendored, go_proxy="http://127.0.0.1:9/")
    assert (workshop.release / "dispatch").exists()


@needs_go
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("listed", ["# example.com/thing v1.1.0\n## explicit\nexample.com/thing\n", ""])
def test_a_vendor_directory_that_does_not_match_is_refused(workshop: Workshop, listed: str) -> None:
    thing = {"vendor/example.com/thing/thing.go": THING, "vendor/modules.txt": listed}
    said = workshop.refused({"main.go": USES, "go.mod": NEEDS, **thing})
    assert "example.com/thing@v1.0.0: is explicitly required in go.mod, but" in said
    assert said.endswith("Run `go mod tidy` and `go mod vendor`, and zip it again.")


@needs_go
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kept", [True, False])
def test_a_module_that_can_t_be_had_is_named(workshop: Workshop, kept: bool) -> None:
    (workshop.root / "empty").mkdir()
    files = {"main.go": USES, **({"go.mod": NEEDS} if kept else {})}
    said = workshop.refused(files, go_proxy=f"file://{workshop.root}/empty")
    assert "example.com/thing" in said
    assert "Put the modules into the artifact with go.mod, go.sum and vendor/" in said
    assert ".build" not in said


@needs_go
@pytest.mark.usefixtures("quick")
def test_a_proxy_s_password_is_in_no_message(workshop: Workshop) -> None:
    said = workshop.refused({"main.go": USES, "go.mod": NEEDS}, go_proxy="http://me:hunter2@127.0.0.1:9/modules")
    assert "127.0.0.1:9/modules/example.com/thing" in said
    assert "hunter2" not in said


@needs_go
@pytest.mark.usefixtures("quick")
def test_a_mistake_is_shown_in_the_compiler_s_own_lines(workshop: Workshop) -> None:
    said = workshop.refused({"main.go": "package main\n\nfunc main() { undefined() }\n"})
    assert said == "the compiler said:\n# dispatch\n./main.go:3:15: undefined: undefined"


@needs_go
@pytest.mark.usefixtures("quick")
def test_two_mains_in_one_package_are_refused_by_the_compiler(workshop: Workshop) -> None:
    said = workshop.refused({"a.go": MAIN, "b.go": MAIN})
    assert "main redeclared in this block" in said


@needs_go
@pytest.mark.usefixtures("quick")
def test_source_whose_root_is_no_main_package_is_told_where_those_are(workshop: Workshop) -> None:
    library = {"go.mod": MODULE, "orders.go": "package orders\n"}
    said = workshop.refused({**library, "cmd/api/x.go": MAIN, "cmd/worker/y.go": MAIN})
    assert "the Go source at the artifact's root is no main package" in said
    assert "Main packages stand in dispatch/cmd/api, dispatch/cmd/worker." in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_the_compiler_is_nobody_and_knows_nothing_of_root(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of root")
    monkeypatch.setenv("GOFLAGS", "-toolexec=/tmp/mine")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")
    assert workshop.build({"main.go": MAIN}, compiler=workshop.fake(), go_proxy="https://me:hunter2@h.invalid")
    lines = workshop.log.read_text().splitlines()
    calls = [line.split("|") for line in lines if "|" in line]
    assert {who for who, _, _ in calls} == {"65534 65534 65534"}
    source = f"{workshop.release}/.build/source"
    assert [(arguments.split()[0], place) for _, arguments, place in calls] == [
        ("mod", source), ("get", source), ("build", source),
    ]  # fmt: skip
    assert not [arguments for _, arguments, _ in calls if "hunter2" in arguments]
    assert {"GOPROXY=https://me:hunter2@h.invalid", "https_proxy=http://127.0.0.1:3128"} <= set(lines)
    assert not [line for line in lines if line.startswith("SECRET=") or "toolexec" in line]


@pytest.mark.parametrize(
    ("files", "proxy", "said"),
    [
        ({}, "", "mod init dispatch|get .|build -mod=readonly|GOPROXY=|GOSUMDB="),
        (
            {"go.mod": NEEDS, "go.sum": ""},
            "https://h.invalid",
            "build -mod=readonly|GOPROXY=https://h.invalid|GOSUMDB=",
        ),
        ({"go.mod": NEEDS}, "file:///srv/modules", "build -mod=mod|GOPROXY=file:///srv/modules|GOSUMDB=off"),
        ({"go.mod": NEEDS, "vendor/modules.txt": ""}, "https://h.invalid", "build -mod=vendor|GOPROXY=off|GOSUMDB="),
    ],
)
def test_the_modules_come_from_where_the_artifact_says(
    workshop: Workshop, files: dict[str, str], proxy: str, said: str
) -> None:
    assert workshop.build({"main.go": MAIN, **files}, compiler=workshop.fake(), go_proxy=proxy)
    lines = workshop.log.read_text().splitlines()
    commands = [line.split("|")[1].partition(" -trimpath")[0] for line in lines if "|" in line]
    told = dict(line.split("=", 1) for line in lines if line.startswith("GO"))
    assert "|".join([*commands, f"GOPROXY={told.get('GOPROXY', '')}", f"GOSUMDB={told.get('GOSUMDB', '')}"]) == said


@pytest.mark.parametrize(
    ("asks", "has", "fine"),
    [
        ("1.19", "1.19.8", True),
        ("1.18.5", "1.19", True),
        ("1.9", "1.19.8", True),
        ("1.20", "1.19.8", False),
        ("1.24.5", "1.24.4", False),
        ("1.24.5", "1.24", True),  # only the compiler can tell
        ("2", "1.24.4", False),
        ("", "1.19", True),
    ],
)
def test_a_module_may_ask_for_no_newer_go(asks: str, has: str, fine: bool) -> None:
    assert go_version.older(has, asks) != fine


def test_a_module_that_asks_for_a_newer_go_is_refused_before_the_build(workshop: Workshop) -> None:
    said = workshop.refused({"main.go": MAIN, "go.mod": "module dispatch\n\ngo 1.25.0\n"}, compiler=workshop.fake())
    assert said.startswith("its go.mod asks for Go 1.25.0, and this host has Go 1.19.8.")
    assert workshop.log.read_text() == ""


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        ({"vendor/modules.txt": ""}, {}, "the artifact has vendor/ but no go.mod"),
        (
            {},
            {"go_proxy": "me:hunter2@host"},
            "the Go proxy is neither an http(s) URL nor the file:// URL of a directory",
        ),
        ({"dispatch": "a binary"}, {}, "the artifact holds dispatch, which is made on the host; leave it out"),
        ({"dispatch/orders.go": ""}, {}, "the artifact holds dispatch, which is made on the host"),
        ({".build/x": ""}, {}, "the artifact holds .build, which is made on the host"),
    ],
)
def test_what_can_t_be_built_is_refused_before_the_build(
    workshop: Workshop, files: dict[str, str], options: dict[str, str], said: str
) -> None:
    told = workshop.refused({"main.go": MAIN, **files}, compiler=workshop.fake(), **options)
    assert told.startswith(said)
    assert "hunter2" not in told
    assert workshop.log.read_text() == ""


def test_a_compiler_that_is_not_there_is_named(workshop: Workshop) -> None:
    said = workshop.refused({"main.go": MAIN}, compiler="/nowhere/go")
    assert said == "/nowhere/go does not run on this host; install Go, or correct go_runtime_systems"


def test_a_link_in_the_place_of_the_program_is_not_followed(workshop: Workshop) -> None:
    (workshop.root / "secret").write_text("of root")
    compiler = Path(workshop.fake())
    compiler.write_text(COMPILER.replace('cp "$(dirname "$0")/elf"', f"ln -s {workshop.root}/secret"))
    with pytest.raises(app_build.BuildError, match="Too many levels of symbolic links"):
        workshop.build({"main.go": MAIN, "go.mod": MODULE}, compiler=str(compiler))
    assert list(workshop.releases.iterdir()) == []


def test_many_lines_of_the_compiler_are_cut() -> None:
    said = app_build_go._said("\n".join(f"main.go:{line}: wrong" for line in range(100)), Path("/source"))
    assert said.splitlines()[-1] == "… and 60 lines more"
    assert len(said.splitlines()) == 42
