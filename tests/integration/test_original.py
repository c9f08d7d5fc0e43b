"""The runbook's own program, as source in Go and as a binary, in the place of this repository's and back."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pika
import pytest

from tests.integration import original
from tests.integration.conftest import BROKER, DISPATCH, TestLab, order, release, until
from tests.lab.ansible import ROOT, Run
from tests.second_engine import deploy as pyinfra

OURS = ROOT / "dist" / "dispatch.zip"
ENVIRONMENT = "/etc/dispatch/credentials/environment"


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("original")
    return {
        "source": original.source(directory / "source.zip"),
        "binary": original.binary(directory / "binary.zip"),
        "broken": original.broken(directory / "broken.zip"),
    }


@pytest.fixture
def host(lab: TestLab) -> Iterator[TestLab]:
    """The lab, whose Dispatch host has this repository's artifact again afterwards."""
    yield lab
    assert lab.playbook("dispatch").code == 0
    lab.assert_consuming()


def deploy(lab: TestLab, artifact: Path, *arguments: str) -> Run:
    return lab.playbook("dispatch", *arguments, "-e", json.dumps({"dispatch_artifact": str(artifact)}))


def live(lab: TestLab) -> str:
    return lab.run(DISPATCH, "sh", "-c", "basename $(readlink /app/current)")


def of(artifact: Path, runtime: str) -> str:
    return f"{hashlib.sha256(artifact.read_bytes()).hexdigest()[:12]}-{runtime}"


def assert_original_consumes(lab: TestLab) -> None:
    published = order()
    lab.publish(json.dumps(published).encode())
    until(lambda: published["orderid"] in lab.run(DISPATCH, "journalctl", "-u", "dispatch", "--output=cat", "-n", "50"))


@pytest.mark.long
def test_the_original_takes_the_place_of_ours_and_gives_it_back(host: TestLab, artifacts: dict[str, Path]) -> None:
    binary = artifacts["binary"]
    run = deploy(host, binary, "--diff", "-v")
    assert run.code == 0, run.output
    assert host.password not in run.output
    assert live(host) == of(binary, "binary")
    assert_original_consumes(host)
    assert deploy(host, binary).changed == 0

    # The program has the password from a file that root alone can read, and from nowhere else.
    assert host.run(DISPATCH, "stat", "-c", "%a %U", ENVIRONMENT) == "600 root"
    unit = host.run(DISPATCH, "systemctl", "cat", "dispatch") + host.run(DISPATCH, "systemctl", "show", "dispatch")
    assert f"EnvironmentFile={ENVIRONMENT}" in unit
    assert host.password not in unit
    # What only the other program has is gone.
    assert host.run(DISPATCH, "sh", "-c", "ls /usr/bin/dispatch 2>/dev/null || :") == ""
    assert host.run(DISPATCH, "systemctl", "show", "dispatch", "-P", "Type") == "exec"

    doctor = host.playbook("doctor")
    assert doctor.code == 0, doctor.output

    # A release that ends at once is undone, and settings that can't work never go live.
    run = deploy(host, artifacts["broken"])
    assert run.code != 0
    assert "are back, and healthy" in run.output
    assert live(host) == of(binary, "binary")
    run = deploy(host, binary, "-e", "dispatch_amqp_user=nobody")
    assert run.code != 0
    assert "`check` failed on this host with the new settings; nothing that is live has changed" in run.output
    run = deploy(host, binary, "-e", "dispatch_amqp_vhost=shop")
    assert "dispatch_amqp_vhost is shop, but the artifact is the original program" in run.output
    assert_original_consumes(host)

    # A rollback brings back what belongs to the release that it goes to.
    assert host.playbook("rollback").code == 0
    assert live(host) == release(OURS)
    assert host.run(DISPATCH, "systemctl", "show", "dispatch", "-P", "Type") == "notify"
    assert host.run(DISPATCH, "sh", "-c", f"ls {ENVIRONMENT} 2>/dev/null || :") == ""
    host.assert_consuming()
    assert host.playbook("rollback", "-e", f"dispatch_release={of(binary, 'binary')}").code == 0
    assert_original_consumes(host)


@contextmanager
def served(lab: TestLab, artifact: Path) -> Iterator[dict[str, str]]:
    """Serve an artifact from the broker's host meanwhile, and yield the variables that name it."""
    lab.put(BROKER, "/srv", artifact)
    server = ("python3", "-m", "http.server", "--directory=/srv", "8000")
    lab.run(BROKER, "systemd-run", "--quiet", "--collect", "--unit=artifacts", *server)
    answers = f"curl --silent --head http://{BROKER}:8000/ || :"
    until(lambda: lab.run(BROKER, "sh", "-c", answers) != "")
    try:
        yield {
            "dispatch_artifact": f"http://{BROKER}:8000/{artifact.name}",
            "dispatch_artifact_sha256": hashlib.sha256(artifact.read_bytes()).hexdigest(),
        }
    finally:
        lab.run(BROKER, "systemctl", "stop", "artifacts")


@pytest.mark.long
def test_an_artifact_by_url_tells_its_kind_once_it_is_fetched(
    host: TestLab, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    binary = tmp_path / "unknown.zip"  # that is on no host yet
    shutil.copy(artifacts["binary"], binary)
    with zipfile.ZipFile(binary, "a") as archive:
        archive.comment = b"by URL"
    with served(host, binary) as variables:
        named = ("-e", json.dumps(variables))
        preview = host.playbook("dispatch", "--check", *named)
        assert preview.code == 0, preview.output
        assert "takes it for a release of the kind python" in " ".join(preview.output.split()), preview.output
        run = host.playbook("dispatch", *named)
        assert run.code == 0, run.output
        assert live(host) == of(binary, "binary")
        assert_original_consumes(host)
    # A release that stands needs its URL no more.
    again = host.playbook("dispatch", *named)
    assert again.code == 0, again.output
    assert again.changed == 0, again.output


@contextmanager
def load(lab: TestLab, rate: int = 200) -> Iterator[list[str]]:
    """Publish that many orders a second meanwhile; the list has the ids of those that RabbitMQ has confirmed."""
    confirmed: list[str] = []
    ended = threading.Event()

    def publish() -> None:
        with closing(lab.connect()) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            while not ended.wait(0.05):
                for published in [order() for _ in range(rate // 20)]:
                    body, properties = json.dumps(published).encode(), pika.BasicProperties(delivery_mode=2, headers={})
                    channel.basic_publish("robot-shop", "orders", body, properties, mandatory=True)
                    confirmed.append(published["orderid"])

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        until(lambda: len(confirmed) >= rate)
        yield confirmed
        enough = len(confirmed) + rate
        until(lambda: len(confirmed) >= enough)
    finally:
        ended.set()
        publisher.join()


@pytest.mark.long
def test_a_switch_under_load_loses_what_the_original_holds_and_nothing_of_ours(
    host: TestLab, artifacts: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    since = host.run(DISPATCH, "date", "+%s")

    def processed() -> list[str]:
        said = host.run(
            DISPATCH, "journalctl", "-u", "dispatch", "--output=cat", f"--since=@{since}", "--grep=Processed"
        )
        return re.findall(r'"orderid": "([^"]+)"', said)

    with load(host) as there:
        assert deploy(host, artifacts["binary"]).code == 0
    until(lambda: there[-1] in processed())
    with load(host) as back:
        assert host.playbook("dispatch").code == 0
    until(lambda: host.waiting() == 0)
    lines = host.run(DISPATCH, "dispatch", "orders", "--json", "--limit", "1000000").splitlines()
    recorded, done = {json.loads(line)["id"] for line in lines}, processed()
    lost, table = {}, []
    for direction, published in (("ours to the original", there), ("the original to ours", back)):
        ids = set(published)
        lost[direction] = ids - recorded - set(done)
        twice = (ids & recorded & set(done)) | {one for one in ids if done.count(one) > 1}
        table.append(
            f"{direction:25} {len(ids):6} orders, lost {len(lost[direction]):4}, dispatched twice {len(twice):4}"
        )
    with capsys.disabled():
        print("", *table, sep="\n")
    assert not lost["ours to the original"]
    assert lost["the original to ours"]  # otherwise the orders did not come while it was stopped


@pytest.mark.long
def test_the_original_s_source_is_built_and_run(host: TestLab, artifacts: dict[str, Path]) -> None:
    source = artifacts["source"]
    run = deploy(host, source)
    assert run.code == 0, run.output
    assert live(host).startswith(of(source, "go"))
    assert_original_consumes(host)
    assert deploy(host, source).changed == 0
    found = pyinfra(host.inventory, "--yes", "--data", f"dispatch_artifact={source}")
    assert (found.code, found.changed) == (0, {}), found.output

    host.run(DISPATCH, "rm", "/etc/dispatch/environment")
    mended = pyinfra(host.inventory, "--yes", "--data", f"dispatch_artifact={source}")
    assert list(mended.changed.values()) == [[DISPATCH]], mended.output
    assert host.password not in mended.output + json.dumps(mended.report)
    assert_original_consumes(host)
    assert deploy(host, source).changed == 0

    removed = host.playbook("remove", "--limit", DISPATCH)
    assert removed.code == 0, removed.output
    left = "ls -d /app /etc/dispatch /etc/systemd/system/dispatch.service* /var/cache/dispatch* 2>/dev/null || :"
    assert host.run(DISPATCH, "sh", "-c", left) == ""
