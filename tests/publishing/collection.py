"""Makes the collection: the checkout's roles and playbooks in the layout that ansible-galaxy installs.

Inside a collection Ansible loads no plugins of roles, so these move to ``plugins/``, and what uses them names them in
full. All else keeps its place, and with it every path from one file to another.
"""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

from dispatch_app import __version__
from tests.publishing import python_source
from tests.publishing.yaml_source import Names

SKELETON = Path(__file__).parent / "skeleton"
# https://docs.ansible.com/ansible/latest/dev_guide/collections_galaxy_meta.html
_GALAXY = {
    "namespace": "roboshop",
    "name": "dispatch",
    "version": __version__,
    "readme": "README.md",
    "authors": ["RoboShop Dispatch provisioner contributors"],
    "description": "Provision RoboShop's Dispatch service and the RabbitMQ it consumes from, on any number of hosts.",
    "license_file": "LICENSE",
    "tags": ["application", "infrastructure", "rabbitmq", "roboshop"],
    # None is needed to deploy Dispatch, or a broker without TLS; the README says what the others need.
    "dependencies": {},
}
NAME = f"{_GALAXY['namespace']}.{_GALAXY['name']}"
# Where the kinds of a role's plugins go. What filters share runs on the controller alone.
PLUGINS = {
    "library": "modules",
    "module_utils": "module_utils",
    "filter_plugins": "filter",
    "filter_utils": "plugin_utils",
}
_WHOLE = ("dispatch_app", "templates")
_FILES = ("LICENSE", "CHANGELOG.md", "roles/README.md")


class CollectionError(Exception):
    """The collection can't be made; the text says why and what to do."""


def archive_name(version: str = __version__) -> str:
    """The name of the collection's file, by which ansible-galaxy knows it."""
    return f"{NAME.replace('.', '-')}-{version}.tar.gz"


def stage(checkout: Path, artifact: Path, target: Path) -> None:
    """Write the collection's files into `target`, which must not exist. Raises CollectionError."""
    if not artifact.is_file():
        raise CollectionError(f"{artifact}, which goes into the collection, does not exist. Build it: `make artifact`.")
    shutil.copytree(SKELETON, target)
    _write(target / "galaxy.yml", yaml.safe_dump(_GALAXY))
    for file in _FILES:
        _write(target / file, (checkout / file).read_text(encoding="utf-8"))
    for directory in _WHOLE:
        shutil.copytree(checkout / directory, target / directory, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "dist").mkdir()
    shutil.copyfile(artifact, target / "dist" / "dispatch.zip")
    signature = artifact.with_name(f"{artifact.name}.sig")
    if signature.is_file():
        shutil.copyfile(signature, target / "dist" / "dispatch.zip.sig")
    names = _names(checkout)
    for book in sorted((checkout / "playbooks").glob("*.yml")):
        _write(target / "playbooks" / book.name, names.qualified(book.read_text(encoding="utf-8")))
    for role in sorted(names.roles):
        _role(checkout / "roles" / role, target / "roles" / role, names)
    _plugins(checkout, target / "plugins")


def build(checkout: Path, artifact: Path, directory: Path) -> Path:
    """Write the collection's archive into `directory` and return its path; the same sources give the same bytes.

    Raises CollectionError.
    """
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary, "collection")
        stage(checkout, artifact, staged)
        command = [sys.executable, "-m", "ansible", "galaxy", "collection", "build", str(staged)]
        done = subprocess.run([*command, "--output-path", temporary], capture_output=True, text=True)
        if done.returncode:
            raise CollectionError(f"ansible-galaxy could not build the collection: {done.stderr.strip()}")
        content = _timeless(Path(temporary, archive_name()).read_bytes())
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / archive_name()
    archive.write_bytes(content)
    return archive


def _names(checkout: Path) -> Names:
    """What the collection brings, by what stands in the roles' directories."""
    roles = checkout / "roles"
    plugins = [file.read_text(encoding="utf-8") for file in roles.glob("*/filter_plugins/*.py")]
    return Names(
        NAME,
        modules=frozenset(file.stem for file in roles.glob("*/library/*.py")),
        roles=frozenset(path.name for path in roles.iterdir() if path.is_dir()),
        filters=frozenset().union(*map(python_source.filters, plugins)),
    )


def _role(source: Path, target: Path, names: Names) -> None:
    """Copy what of a role remains a role's."""
    writers = {".yml": names.qualified, ".j2": names.in_template}
    for file in sorted(source.rglob("*")):
        path = file.relative_to(source)
        if not file.is_file() or path.parts[0] in PLUGINS:
            continue
        if file.suffix in writers:
            _write(target / path, writers[file.suffix](file.read_text(encoding="utf-8")))
        else:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / path)


def _plugins(checkout: Path, target: Path) -> None:
    """Write the roles' plugins. A link, by which one role carries what is another's, is that other's file."""
    files = {file.resolve() for kind in PLUGINS for file in checkout.resolve().glob(f"roles/*/{kind}/*.py")}
    homes = {file: PLUGINS[file.parent.name] for file in sorted(files)}
    if len({(home, file.name) for file, home in homes.items()}) < len(files):
        raise CollectionError("Two roles have different plugins of one name, for which a collection has one place.")
    packages = {
        file.stem: f"ansible_collections.{NAME}.plugins.{home}"
        for file, home in homes.items() if home in ("module_utils", "plugin_utils")
    }  # fmt: skip
    for file, home in homes.items():
        try:
            text = python_source.qualified(file.read_text(encoding="utf-8"), file.parents[1].name, packages)
        except python_source.SourceError as error:
            raise CollectionError(f"{file}: {error}") from error
        _write(target / home / file.name, text)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _timeless(archive: bytes) -> bytes:
    """The archive without what differs from build to build: order, times, owners, and the modes of this machine."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size, plain.mode = member.type, member.size, 0o755 if member.isdir() else 0o644
            new.addfile(plain, old.extractfile(member) if member.isfile() else None)
    return gzip.compress(buffer.getvalue(), mtime=0)
