"""What an artifact says that it is made of is what it is made of, and no place or time can be told from it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from dispatch_app import __version__, artifact, sbom, version

PACKAGE = Path(artifact.__file__).parent
BUILT = PACKAGE.parent / "dist" / "dispatch.zip"


def git(directory: Path, *words: str) -> str:
    own = {"GIT_AUTHOR_DATE": "@1 +0000", "GIT_COMMITTER_DATE": "@1 +0000", "PATH": os.environ["PATH"]}
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    command = ["git", *identity, "-C", str(directory), *words]
    return subprocess.run(command, env=own, capture_output=True, text=True, check=True).stdout.strip()


def checkout(place: Path) -> Path:
    """A checkout of the package as it is here, in its first commit."""
    shutil.copytree(PACKAGE, place / "dispatch_app", ignore=shutil.ignore_patterns("__pycache__"))
    (place / ".gitignore").write_text("__pycache__/\n")
    git(place, "init", "--quiet")
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message", "x")
    return place


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of the artifact, from which another one can be built without an index."""
    directory = tmp_path_factory.mktemp("wheels")
    with zipfile.ZipFile(BUILT) as built:
        for name in built.namelist():
            if name.endswith(".whl"):
                (directory / Path(name).name).write_bytes(built.read(name))
    return directory


@pytest.fixture(scope="module")
def tracing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels that the artifact carries unpacked, and not as such."""
    directory = tmp_path_factory.mktemp("tracing")
    artifact.wheels(PACKAGE / "tracing.txt", directory)
    return directory


@pytest.mark.long
def test_two_builds_in_different_places_and_zones_are_the_same(wheels: Path, tracing: Path, tmp_path: Path) -> None:
    built = []
    for name, zone, umask, seed, locale in (
        ("one", "Pacific/Kiritimati", 0o077, "1", "C"),
        ("two/deeper", "America/St_Johns", 0o002, "2", "C.UTF-8"),
    ):
        place = tmp_path / name
        place.mkdir(parents=True)
        os.utime(checkout(place) / "dispatch_app" / "service.py", (0, 0) if name == "one" else None)
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": str(place), "PYTHONHASHSEED": seed,
            "TZ": zone, "LC_ALL": locale, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{wheels} {tracing}",
            "PIP_CONFIG_FILE": os.devnull,
        }  # fmt: skip
        subprocess.run(
            [sys.executable, "-m", "dispatch_app.artifact", "dist/x.zip"], cwd=place, env=environment, umask=umask,
            check=True,
        )  # fmt: skip
        built.append([(place / "dist" / file).read_bytes() for file in ("x.zip", "x.cdx.json")])
    assert built[0] == built[1]
    content, listed = built[0]
    assert zipfile.ZipFile(io.BytesIO(content)).read(sbom.NAME) == listed
    (commit,) = json.loads(listed)["metadata"]["component"]["properties"]
    assert commit == {"name": "commit", "value": git(tmp_path / "one", "rev-parse", "HEAD")}


def test_the_commit_is_the_one_that_last_changed_the_code(tmp_path: Path) -> None:
    place = checkout(tmp_path)
    first = git(place, "rev-parse", "HEAD")
    (place / "README").touch()
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message", "y")
    assert artifact.commit(place / "dispatch_app") == first
    (place / "dispatch_app" / "more.py").touch()
    assert artifact.commit(place / "dispatch_app") == f"{first}-dirty"
    shutil.rmtree(place / ".git")
    assert artifact.commit(place / "dispatch_app") == ""


def listed(wheels: Path, **given: Any) -> dict[str, Any]:
    pinned = {"wheels": [path for path in sorted(wheels.iterdir()) if not path.name.startswith("pip-")],
              "installer": list(wheels.glob("pip-*"))}  # fmt: skip
    document: dict[str, Any] = json.loads(sbom.document(**{"version": "1", "commit": "", "wheels": pinned, **given}))
    return document


def test_the_list_is_cyclonedx(wheels: Path) -> None:
    for document in (listed(wheels), listed(wheels, commit="ab" * 20, shop="shop")):
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    del document["bomFormat"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is not None


@pytest.mark.parametrize(("file", "scope"), [("requirements.txt", "required"), ("installer.txt", "excluded")])
def test_the_list_is_that_of_the_pins_and_of_another_tool(wheels: Path, file: str, scope: str) -> None:
    ours = {
        (one["name"].replace("_", "-"), one["version"], one["purl"], one["hashes"][0]["content"])
        for one in listed(wheels)["components"]
        if one["scope"] == scope
    }
    pins = re.findall(r"^(\S+)==(\S+) \\\n +--hash=sha256:(\w+)", (PACKAGE / file).read_text(), re.MULTILINE)
    assert ours == {(name, number, f"pkg:pypi/{name}@{number}", digest) for name, number, digest in pins}
    tool = str(Path(sys.executable).with_name("cyclonedx-py"))
    told = subprocess.run([tool, "requirements", str(PACKAGE / file)], capture_output=True, text=True, check=True)
    theirs = {
        (one["name"], one["version"], one["purl"], one["externalReferences"][0]["hashes"][0]["content"])
        for one in json.loads(told.stdout)["components"]
    }
    assert ours == theirs


def test_what_runs_only_where_it_is_asked_for_is_listed_as_such_and_once(wheels: Path, tracing: Path) -> None:
    both = {"wheels": list(wheels.glob("typing_extensions-*")), "tracing": sorted(tracing.iterdir())}
    components = json.loads(sbom.document("1", "", both))["components"]
    scopes = {one["name"]: one["scope"] for one in components}
    assert {"typing_extensions": "required", "protobuf": "optional"}.items() <= scopes.items()
    assert len(scopes) == len(components) == len(both["tracing"])


def test_a_shop_s_package_is_in_the_list(wheels: Path) -> None:
    document = listed(wheels, shop="shop")
    assert {"type": "library", "bom-ref": "shop:shop", "name": "shop", "scope": "required"} in document["components"]
    assert "shop:shop" in document["dependencies"][0]["dependsOn"]


def test_a_release_says_what_it_is_made_of(wheels: Path, tmp_path: Path) -> None:
    release = tmp_path / "0d69affe422b-python3.11"
    release.mkdir()
    (release / ".complete").touch()
    (release / sbom.NAME).write_text(json.dumps(listed(wheels, commit="ab" * 20)))
    told = version.facts(release)
    assert (told["version"], told["release"], told["commit"]) == (__version__, release.name, "ab" * 20)
    assert set(told["dependencies"]) == {"pika", "prometheus_client", "psycopg", "typing_extensions"}
    assert told["dependencies"]["pika"]  # the version that is installed here
    assert version.components(release)["pip"]


@pytest.mark.parametrize("text", [None, "no JSON"])
def test_a_checkout_says_what_is_known_of_it(tmp_path: Path, text: str | None) -> None:
    if text:
        (tmp_path / sbom.NAME).write_text(text)
    told = version.facts(tmp_path)
    assert (told["version"], told["release"], told["commit"], told["dependencies"]) == (__version__, None, None, {})
