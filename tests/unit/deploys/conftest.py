"""Inventories of one host for the second engine."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploys.desired import Desired

PASSWORD = "not-to-be-seen"  # noqa: S105 - that of no service


@pytest.fixture
def desired(tmp_path: Path) -> Iterator[Callable[..., Desired]]:
    """What is wanted of a host, h1 by default, which has the variables given; those that are None are left out."""
    artifact = tmp_path / "good.zip"
    with zipfile.ZipFile(artifact, "w") as archive:
        archive.writestr("requirements.txt", "")
    good = {
        "ansible_host": "192.0.2.1",
        "dispatch_amqp_host": "rabbit",
        "dispatch_amqp_password": PASSWORD,
        "dispatch_artifact": str(artifact),
    }

    def make(host: str = "h1", **variables: object) -> Desired:
        values = {key: value for key, value in {**good, **variables}.items() if value is not None}
        inventory = tmp_path / "hosts.yml"
        inventory.write_text(json.dumps({"all": {"children": {"dispatch": {"hosts": {host: values}}}}}))
        made.append(Desired([str(inventory)]))
        return made[-1]

    made: list[Desired] = []
    yield make
    for one in made:
        one.variables.extra_vars.clear()  # Ansible keeps them for the whole process
