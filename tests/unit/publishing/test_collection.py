"""The collection that `make collection` builds, installed and run without the checkout."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import yaml
from jinja2 import nodes

from dispatch_app import __version__
from tests.lab.ansible import ROOT
from tests.publishing import python_source
from tests.publishing.collection import NAME, CollectionError, build, stage
from tests.publishing.installed import Installed
from tests.publishing.links import broken
from tests.unit.publishing.conftest import ARTIFACT

BOOKS = sorted(file.stem for file in (ROOT / "playbooks").glob("*.yml") if file.stem != "require_hosts")
HERE = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
GROUPS = ("dispatch", "payment", "rabbitmq", "postgresql", "monitoring")


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """This machine, as a host of every group."""
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps({"all": {"children": {group: {"hosts": {"here": HERE}} for group in GROUPS}}}))
    return file


def test_the_collection_has_the_project_s_version(installed: Installed) -> None:
    manifest = json.loads((installed.directory / "MANIFEST.json").read_text())
    assert manifest["collection_info"]["version"] == __version__
    assert installed.archive.name == f"roboshop-dispatch-{__version__}.tar.gz"


def test_the_collection_carries_the_artifact(installed: Installed) -> None:
    assert (installed.directory / "dist" / "dispatch.zip").read_bytes() == ARTIFACT.read_bytes()


def test_the_same_sources_give_the_same_bytes(installed: Installed, tmp_path: Path) -> None:
    assert build(ROOT, ARTIFACT, tmp_path).read_bytes() == installed.archive.read_bytes()


def test_every_playbook_is_found_by_name_with_all_it_names(installed: Installed, inventory: Path) -> None:
    books = [f"{NAME}.{book}" for book in BOOKS]
    done = installed.ansible("playbook", "-i", str(inventory), "--syntax-check", "-e", "broker=here", *books)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize("book", ["site", "payment"])
def test_an_inventory_without_hosts_is_refused(installed: Installed, tmp_path: Path, book: str) -> None:
    (tmp_path / "hosts.yml").write_text("all: {}\n")
    done = installed.ansible("playbook", "-i", str(tmp_path / "hosts.yml"), f"{NAME}.{book}")
    assert done.returncode != 0
    assert "The inventory has no host in the group" in done.stdout


def test_wrong_values_are_refused_as_by_the_checkout(installed: Installed, inventory: Path) -> None:
    given = ["-e", "rabbitmq_password=x", "-e", "dispatch_amqp_host=amqp://x", "-e", "dispatch_amqp_password=y"]
    done = installed.ansible("playbook", "-i", str(inventory), *given, f"{NAME}.check")
    assert done.returncode != 0
    assert 'dispatch_amqp_host is "amqp://x"' in done.stdout


def test_the_doctor_of_the_collection_examines_a_host(installed: Installed, inventory: Path) -> None:
    done = installed.ansible("playbook", "-i", str(inventory), f"{NAME}.doctor")
    assert "unit-missing" in done.stdout
    assert "unit-missing" in (installed.elsewhere / "doctor.html").read_text()


def test_every_plugin_finds_all_that_it_imports(installed: Installed) -> None:
    plugins = (installed.directory / "plugins").glob("*/*.py")
    names = [f"ansible_collections.{NAME}.plugins.{file.parent.name}.{file.stem}" for file in plugins]
    program = (
        "import importlib, sys\n"
        "from ansible.plugins.loader import init_plugin_loader\n"
        "init_plugin_loader([sys.argv[1]])\n"
        "for name in sys.argv[2:]: importlib.import_module(name)\n"
    )
    command = [sys.executable, "-I", "-c", program, str(installed.collections), *names]
    done = subprocess.run(command, cwd=installed.elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["app_state", "rabbitmq_objects"])
def test_a_module_is_sent_with_all_that_it_imports(installed: Installed, inventory: Path, module: str) -> None:
    done = installed.ansible("adhoc", "dispatch", "-i", str(inventory), "-m", f"{NAME}.{module}")
    assert "missing required arguments: " in done.stdout


def test_filters_and_modules_are_named_in_full(installed: Installed) -> None:
    plugins = (ROOT / "roles").glob("*/filter_plugins/*.py")
    filters = set().union(*(python_source.filters(file.read_text()) for file in plugins))
    modules = {file.stem for file in (ROOT / "roles").glob("*/library/*.py")}
    used = 0
    for file in installed.directory.glob("**/templates/*.j2"):
        assert not filters.intersection(_filters(file.read_text())), file
    for file in [*installed.directory.glob("roles/**/*.yml"), *installed.directory.glob("playbooks/*.yml")]:
        document = _Plain(file.read_text()).get_single_data()
        for name in _filters(document):
            assert name not in filters, file
            used += name.startswith(f"{NAME}.")
        if file.parent.name in ("tasks", "playbooks"):
            assert not [task for task in _mappings(document) if "name" in task and task.keys() & modules], file
    assert used > len(filters)


def test_no_source_names_a_place_that_only_the_checkout_has(installed: Installed) -> None:
    for file in (installed.directory / "plugins").rglob("*.py"):
        text = file.read_text()
        assert "sys.path" not in text, file
        assert not re.search(r"ansible\.module_utils(?!\.(basic|common|parsing)\b)", text), file


def test_the_collection_s_own_links_lead_somewhere(installed: Installed) -> None:
    assert list(broken(installed.directory / "README.md", installed.directory)) == []


@pytest.mark.parametrize("signed", [True, False])
def test_an_artifact_goes_with_its_signature(tmp_path: Path, signed: bool) -> None:
    artifact = tmp_path / "dispatch.zip"
    artifact.write_bytes(b"artifact")
    if signed:
        (tmp_path / "dispatch.zip.sig").write_bytes(b"signature")
    stage(ROOT, artifact, tmp_path / "staged")
    carried = {file.name for file in (tmp_path / "staged" / "dist").iterdir()}
    assert carried == {"dispatch.zip", *(["dispatch.zip.sig"] if signed else [])}


def test_without_an_artifact_nothing_is_built(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="Build it: `make artifact`"):
        stage(ROOT, tmp_path / "none.zip", tmp_path / "staged")


class _Plain(yaml.SafeLoader):
    """Takes a value with one of Ansible's tags for what it would be without."""


_Plain.add_multi_constructor("!", lambda loader, _, node: loader.construct_scalar(node))


def _mappings(value: object) -> list[dict[str, object]]:
    if isinstance(value, list):
        return [found for each in value for found in _mappings(each)]
    if isinstance(value, dict):
        return [value, *(found for key, each in value.items() if key != "vars" for found in _mappings(each))]
    return []


def _filters(value: object) -> list[str]:
    """The names of the filters in the templates, and in the conditions, that a document holds."""
    if isinstance(value, dict):
        return [name for each in value.values() for name in _filters(each)]
    if isinstance(value, list):
        return [name for each in value for name in _filters(each)]
    if not isinstance(value, str):
        return []
    template = value if re.search(r"\{[{%]", value) else f"{{{{ {value} }}}}"
    try:
        tree = jinja2.Environment(autoescape=True).parse(template)
    except jinja2.TemplateSyntaxError:
        return []  # words, and no expression
    calls = list(tree.find_all(nodes.Filter))
    named = [one for call in calls if call.name in ("map", "select", "reject") for one in call.args[:1]]
    return [call.name for call in calls] + [str(one.value) for one in named if isinstance(one, nodes.Const)]
