"""Both engines install an artifact from a URL only with a signature that counts, which the host itself verifies."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration import original
from tests.integration.conftest import BROKER, DISPATCH, TestLab, release, until
from tests.lab.ansible import ROOT, playbook
from tests.second_engine import deploy
from tests.signatures import Case, Keys, cases

OURS = ROOT / "dist" / "dispatch.zip"
PORT = 8001


class Shop:
    """Artifacts that the broker's host serves by HTTP, and an inventory that names one of them."""

    def __init__(self, lab: TestLab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.keys = Keys(directory)
        # Beside the lab's own, from which its way to the hosts' key starts.
        self.inventory = lab.inventory.with_name("signed")
        shutil.rmtree(self.inventory, ignore_errors=True)
        shutil.copytree(lab.inventory, self.inventory)

    def serve(self, case: Case) -> None:
        """Put an artifact and its signature, as far as it has one, where the inventory finds them from now on."""
        sha256 = hashlib.sha256(case.content).hexdigest()
        files = {f"{sha256[:12]}.zip": case.content, f"{sha256[:12]}.zip.sig": case.signature}
        self.lab.run(BROKER, "sh", "-c", "rm -f /srv/*")
        for name, content in files.items():
            if content is not None:
                (self.directory / name).write_bytes(content)
                self.lab.put(BROKER, "/srv", self.directory / name)
        self.wants(
            dispatch_artifact=f"http://{BROKER}:{PORT}/{sha256[:12]}.zip", dispatch_artifact_sha256=sha256,
            dispatch_artifact_signers=case.signers, dispatch_artifact_revoked=case.revoked,
        )  # fmt: skip

    def wants(self, **variables: str) -> None:
        (self.inventory / "group_vars" / "dispatch.yml").write_text(json.dumps(variables))

    def by_ansible(self, book: str = "dispatch") -> tuple[int, str]:
        run = playbook(book, inventory=self.inventory)
        return run.code, " ".join(run.output.split())

    def by_pyinfra(self) -> tuple[int, str]:
        run = deploy(self.inventory, "--yes")
        return run.code, " ".join(run.output.split())

    def live(self) -> str:
        return self.lab.run(DISPATCH, "sh", "-c", "basename $(readlink /app/current)")


@pytest.fixture
def shop(lab: TestLab, tmp_path: Path) -> Iterator[Shop]:
    """The lab, whose Dispatch host has this repository's artifact again afterwards."""
    server = ("python3", "-m", "http.server", "--directory=/srv", str(PORT))
    lab.run(BROKER, "systemd-run", "--quiet", "--collect", "--unit=signed", *server)
    answers = f"curl --silent --head http://{BROKER}:{PORT}/ || :"
    until(lambda: lab.run(BROKER, "sh", "-c", answers) != "")
    yield Shop(lab, tmp_path)
    lab.run(BROKER, "systemctl", "stop", "signed")
    if lab.run(DISPATCH, "sh", "-c", "basename $(readlink /app/current)") != release(OURS):
        assert lab.playbook("dispatch").code == 0


def assert_refused(shop: Shop, case: Case, engine: Callable[[], tuple[int, str]]) -> None:
    before = shop.lab.run(DISPATCH, "ls", "-l", "/app", "/app/releases")
    code, output = engine()
    assert code != 0, output
    assert case.said in output, (case.name, output)
    assert shop.lab.run(DISPATCH, "ls", "-l", "/app", "/app/releases") == before


def of(shop: Shop, newer: Path) -> dict[str, Case]:
    content = newer.read_bytes()
    return {case.name: case for case in cases(shop.keys, content, content.replace(b"def main(", b"def niam("))}


def test_an_artifact_that_was_changed_after_it_was_signed_is_refused_by_both_engines(shop: Shop, newer: Path) -> None:
    case = of(shop, newer)["tampered with"]
    shop.serve(case)
    assert_refused(shop, case, lambda: shop.by_ansible("check"))
    assert_refused(shop, case, shop.by_pyinfra)


@pytest.mark.long
def test_no_other_signature_counts_for_either_engine(shop: Shop, newer: Path) -> None:
    for case in of(shop, newer).values():
        if case.said:
            shop.serve(case)
            assert_refused(shop, case, lambda: shop.by_ansible("check"))
            assert_refused(shop, case, shop.by_pyinfra)


@pytest.mark.long
@pytest.mark.parametrize("engines", [("by_ansible", "by_pyinfra"), ("by_pyinfra", "by_ansible")])
def test_a_signed_artifact_is_installed_and_verified_anew_for_other_signers(
    shop: Shop, newer: Path, engines: tuple[str, str]
) -> None:
    every = of(shop, newer)
    first, second = (getattr(shop, name) for name in engines)
    shop.serve(every["signed"])
    code, output = first()
    assert code == 0, output
    assert shop.live() == release(newer)
    started = shop.lab.run(DISPATCH, "systemctl", "show", "dispatch", "-P", "InvocationID")
    assert "Nothing to change" in second()[1] or "changed=0" in second()[1]
    # The other engine verifies what stands by the new list, and builds and restarts nothing for it.
    shop.serve(every["signed by one of several"])
    code, output = second()
    assert code == 0, output
    assert "Nothing to change" in first()[1] or "changed=0" in first()[1]
    shop.serve(every["a revoked key"])
    for engine in (first, second):
        assert_refused(shop, every["a revoked key"], engine)
    assert shop.lab.run(DISPATCH, "systemctl", "show", "dispatch", "-P", "InvocationID") == started


@pytest.mark.long
@pytest.mark.parametrize("engine", ["by_ansible", "by_pyinfra"])
def test_a_file_of_the_controller_brings_its_signature_along(shop: Shop, newer: Path, engine: str) -> None:
    source = original.source(shop.directory / "source.zip")
    for artifact in (newer, source):
        signers = f"release {shop.keys.public('release')}"
        shop.wants(dispatch_artifact=str(artifact), dispatch_artifact_signers=signers)
        own = Path(f"{OURS}.sig")
        beside = Path(f"{artifact}.sig")
        code, output = getattr(shop, engine)()
        assert code != 0
        assert f"and it is not signed: there is no signature at {beside}" in output
        beside.write_bytes(shop.keys.sign("release", artifact.read_bytes()))
        try:  # this repository's zip checks the settings of a program that can't do it itself
            own.write_bytes(shop.keys.sign("release", OURS.read_bytes()))
            code, output = getattr(shop, engine)()
        finally:
            own.unlink()
        assert code == 0, output
        assert shop.live().startswith(hashlib.sha256(artifact.read_bytes()).hexdigest()[:12])
        assert shop.lab.run(DISPATCH, "sh", "-c", "ls /var/cache | grep sig || :") == ""


def test_a_host_tells_what_it_runs(lab: TestLab) -> None:
    told = json.loads(lab.run(DISPATCH, "dispatch", "--version", "--json"))
    assert told["release"] == release(OURS)
    listed = json.loads(OURS.with_suffix(".cdx.json").read_text())
    (commit,) = listed["metadata"]["component"].get("properties", [{"value": None}])
    assert told["commit"] == commit["value"]
    pinned = {one["name"]: one["version"] for one in listed["components"] if one["scope"] == "required"}
    assert {name: version for name, version in told["dependencies"].items() if version} == pinned
    run = lab.playbook("releases")
    assert run.code == 0
    held = [f"{one['name']} {one['version']}" for one in listed["components"] if one["scope"] != "excluded"]
    assert f"with {', '.join(held)}" in " ".join(run.output.split())
