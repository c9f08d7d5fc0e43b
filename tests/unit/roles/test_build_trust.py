"""While root builds a release, it runs no code that the artifact brings or that others could have put there."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path

import pytest
from ansible.module_utils import app_build, app_releases

from tests.unit.roles.test_build import Releases

# Every module that the build runs by name, and one that each of them imports.
SHADOWS = ("venv.py", "zipfile.py", "compileall.py", "ensurepip/__init__.py", "pip/__main__.py", "shutil.py", "re.py")


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    return Releases(tmp_path, monkeypatch)


@pytest.fixture
def real(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """Builds with this Python and its own pip."""
    releases.interpreter = Path(sys.executable)
    for name in [name for name in os.environ if name.startswith(("PIP_", "PYTHON"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    return releases


def build(releases: Releases, files: dict[str, str | bytes], name: str = "one") -> bool:
    with zipfile.ZipFile(releases.artifact, "w") as archive:
        for path, content in {"requirements.txt": "", **files}.items():
            archive.writestr(path, content)
    sha256 = hashlib.sha256(releases.artifact.read_bytes()).hexdigest()
    plan = app_build.Plan(releases.artifact, sha256, releases.directory / name, str(releases.interpreter))
    return bool(app_build.build(plan))


def wheel(files: dict[str, str]) -> bytes:
    """The wheel of a package `thing` 1.0, with these files besides its metadata."""
    buffer, info = io.BytesIO(), "thing-1.0.dist-info"
    files = {
        **files,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))
    return buffer.getvalue()


def test_no_module_of_the_artifact_or_of_a_package_is_run(real: Releases) -> None:
    ran = real.root / "ran"
    code = f"open({str(ran)!r}, 'a').write(__file__ + '\\n')\n"
    carried = wheel({"thing.py": code, "thing.pth": f"import os; open({str(ran)!r}, 'a').write('a .pth file')\n"})
    files = {**dict.fromkeys(SHADOWS, code), "requirements.txt": "thing==1.0\n"}
    assert build(real, {**files, "wheels/thing-1.0-py3-none-any.whl": carried})
    assert not ran.exists(), ran.read_text()
    assert list((real.directory / "one/venv").rglob("thing.pth"))
    assert real.stands()


def test_a_package_that_has_to_be_built_is_refused(real: Releases) -> None:
    ran = real.root / "ran"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("thing-1.0/backend.py", f"open({str(ran)!r}, 'w')\n")
        build_system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        archive.writestr("thing-1.0/pyproject.toml", build_system)
    with pytest.raises(app_build.BuildError, match="Only wheels are installed, because building any other package"):
        build(real, {"requirements.txt": "thing==1.0\n", "wheels/thing-1.0.zip": buffer.getvalue()})
    assert not ran.exists()
    assert real.names() == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pika==1.4.4", 'has the line "pika==1.4.4" without a hash, and what comes from a package index needs one'),
        ("--no-binary :all:", "an option, a path or a URL could make pip run code of a package as root"),
        ("--no-binary=:all: # a comment", "an option, a path or a URL"),
        ("-e .", "an option, a path or a URL"),
        (".", "an option, a path or a URL"),
        ("./thing-1.0.tar.gz", "an option, a path or a URL"),
        ("wheels/thing-1.0.tar.gz", "an option, a path or a URL"),
        ("thing @ https://example.com/thing-1.0.tar.gz", "an option, a path or a URL"),
        ("git+https://example.com/thing.git", "an option, a path or a URL"),
        (f"pika==1.4.4 --hash=sha256:{'0' * 64} --global-option=x", "an option, a path or a URL"),
        ("# a comment \\\n--no-binary=:all:", "an option, a path or a URL"),
        ("--no-\\\nbinary=:all:", 'has the line "--no-binary=:all:"'),
        ("\ufeff-e .", "an option, a path or a URL"),
        ("# a comment\x0c-e .", "an option, a path or a URL"),
    ],
)
def test_a_requirement_that_could_run_code_is_refused(releases: Releases, line: str, said: str) -> None:
    hashed = f"pika==1.4.4 --hash=sha256:{'0' * 64}\n"
    with pytest.raises(app_build.BuildError, match=r"requirements\.txt has the line") as refused:
        build(releases, {"requirements.txt": f"{hashed}{line}\n"})
    assert said in str(refused.value)
    assert not releases.log.exists()  # no program has run
    assert releases.names() == []


def test_requirements_in_another_encoding_are_refused(releases: Releases) -> None:
    with pytest.raises(app_build.BuildError, match=r"requirements.txt is no UTF-8 text"):
        build(releases, {"requirements.txt": "-e .".encode("utf-16")})


def test_requirements_from_an_index_need_hashes(releases: Releases) -> None:
    hashed = f"pika == 1.4.4 ; python_version > '3' \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n"
    assert build(releases, {"requirements.txt": f"# pinned\n\n{hashed}"})
    (pip,) = [line for line in releases.log.read_text().splitlines() if " pip install " in line]
    assert "--only-binary :all: --require-hashes" in pip


def test_the_artifact_s_digest_covers_the_wheels_it_carries(releases: Releases) -> None:
    assert build(releases, {"requirements.txt": "thing[extra]>=1,<2\n", "wheels/": ""})
    (pip,) = [line for line in releases.log.read_text().splitlines() if " pip install " in line]
    assert f"--only-binary :all: --no-index --find-links {releases.directory}/one/wheels" in pip


def test_the_artifact_s_own_pip_is_not_run_before_its_digest_was_compared(releases: Releases) -> None:
    with zipfile.ZipFile(releases.artifact, "w") as archive:
        archive.writestr("requirements.txt", "")
        archive.writestr("installer/pip-1-py3-none-any.whl", "")
    plan = app_build.Plan(releases.artifact, "0" * 64, releases.directory / "one", str(releases.interpreter))
    with pytest.raises(app_build.BuildError, match=f"its SHA-256 is not {'0' * 64}"):
        app_build.build(plan)
    assert not releases.log.exists()


@pytest.mark.parametrize("path", ["venv/bin/python", "./venv/pyvenv.cfg", ".complete", ".activated/x"])
def test_an_artifact_that_brings_what_the_host_makes_is_refused(releases: Releases, path: str) -> None:
    with pytest.raises(app_build.BuildError, match=r"the artifact holds \S+, which is made on the host; leave it out"):
        build(releases, {path: "x"})
    assert not releases.log.exists()
    assert releases.names() == []


def test_an_artifact_of_the_same_id_but_another_digest_is_built_anew(releases: Releases) -> None:
    assert build(releases, {"file": "first"})
    assert build(releases, {"file": "other"})
    assert (releases.directory / "one/file").read_text() == "other"
    assert not build(releases, {"file": "other"})


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_parent_that_others_can_write_to_is_refused(releases: Releases, mode: int) -> None:
    parent = releases.directory.parent
    assert build(releases, {})
    parent.chmod(mode)
    assert not releases.stands()
    assert app_releases.complete(parent) == []
    with pytest.raises(app_build.BuildError, match=f"^{parent} can be written to by others than root, who could put"):
        build(releases, {}, "two")
    parent.chmod(0o755)
    assert releases.stands()
    assert [one.id for one in app_releases.complete(parent)] == ["one"]


def test_a_parent_behind_a_link_is_refused_too(releases: Releases) -> None:
    home = releases.directory.parent
    (releases.root / "volume").mkdir()
    home.rename(releases.root / "volume/app")
    home.symlink_to(releases.root / "volume/app")
    assert build(releases, {})
    (releases.root / "volume").chmod(0o777)
    assert not releases.stands()
    with pytest.raises(app_build.BuildError, match=f"{releases.root}/volume can be written to by others than root"):
        build(releases, {}, "two")


def test_a_sticky_parent_is_root_s(releases: Releases) -> None:
    releases.root.chmod(0o1777)
    assert build(releases, {})
    assert releases.stands()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_release_that_another_user_marked_complete_is_none(releases: Releases) -> None:
    build(releases, {})
    os.chown(releases.directory / "one/.complete", 65534, 65534)
    assert not releases.stands()
    assert app_releases.complete(releases.directory.parent) == []
