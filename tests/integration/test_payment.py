"""The shop's flow: an order over HTTP to payment, through RabbitMQ and Dispatch, into the ledger."""

from __future__ import annotations

import dataclasses
import json
import time
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.integration.conftest import BROKER, OTHER_BROKER, TestLab, order
from tests.lab import image, shop
from tests.lab.ansible import Run
from tests.lab.hosts import Host

PAYMENT, PORT = "test-payment", 22380
# RoboShop's own, which names a user that only root could become, and a server that is no wheel.
INI = """[uwsgi]
wsgi-file = payment.py
callable = app
master = true
threads = 8
socket = 0.0.0.0:8080
protocol = http
uid = 1
gid = 1
"""

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def shop_lab(lab: TestLab) -> Iterator[TestLab]:
    """The lab, provisioned, and a host for payment, which is not."""
    hosts = (*lab.lab.hosts, Host(PAYMENT, "payment", 22305, ((8080, PORT),)))
    dataclasses.replace(lab.lab, hosts=hosts).up(lab.client, image.ensure(lab.client))
    shop.write_artifact(lab.lab.state / "payment.zip")
    yield lab
    lab.host(PAYMENT).remove(force=True, v=True)


def pay() -> str:
    return shop.pay(PORT, "dave", order()["cart"])


def seconds_to_the_ledger(lab: TestLab) -> float:
    """How long after payment's answer an order was in the ledger, by the clocks of hosts on one machine."""
    paid = pay()
    answered = time.time()
    while not (found := lab.dispatched(paid)):
        assert time.time() < answered + 20
    return datetime.fromisoformat(found[0]["dispatched_at"]).timestamp() - answered


def provision(lab: TestLab, **variables: object) -> Run:
    return lab.playbook("payment", "--diff", "-e", json.dumps(variables))


def test_an_order_over_http_is_dispatched(shop_lab: TestLab) -> None:
    run = provision(shop_lab)
    assert run.code == 0, run.output
    assert shop_lab.password not in run.output
    assert seconds_to_the_ledger(shop_lab) < 1
    assert provision(shop_lab).changed == 0


def test_a_compiler_comes_to_the_host_where_a_package_needs_it_alone(shop_lab: TestLab, tmp_path: Path) -> None:
    course = tmp_path / "course.zip"
    with zipfile.ZipFile(course, "w") as archive:
        archive.writestr("requirements.txt", "pika\nuwsgi\n")
        archive.writestr("payment.ini", INI)
        archive.write(shop.SOURCE / "payment.py", "payment.py")
    before = shop_lab.run(PAYMENT, "systemctl", "show", "payment", "-p", "InvocationID")
    assert "gcc" not in shop_lab.run(PAYMENT, "ls", "/usr/bin").split()
    absent = {"debian-12": {"interpreter": "/usr/bin/python3.11", "packages": [], "toolchain": ["no-such-compiler"]}}

    run = provision(shop_lab, payment_artifact=str(course), python_runtime_systems=absent)
    assert run.code != 0
    said = " ".join(run.output.split())
    assert "A package that its requirements.txt needs has no wheel for this host and has to be built" in said
    assert "could not be installed on it: no-such-compiler (" in said
    assert shop_lab.run(PAYMENT, "systemctl", "show", "payment", "-p", "InvocationID") == before

    run = provision(shop_lab, payment_artifact=str(course))
    assert run.code == 0, run.output
    assert "gcc" in shop_lab.run(PAYMENT, "ls", "/usr/bin").split()
    assert seconds_to_the_ledger(shop_lab) < 1
    assert provision(shop_lab, payment_artifact=str(course)).changed == 0


def test_it_publishes_to_another_rabbitmq_once_the_inventory_says_so(shop_lab: TestLab) -> None:
    with shop_lab.edited(f"dispatch_amqp_host: {BROKER}", f"dispatch_amqp_host: {OTHER_BROKER}"):
        moved = shop_lab.playbook("dispatch")
        assert moved.code == 0, moved.output
        assert provision(shop_lab).changed > 0
        assert seconds_to_the_ledger(shop_lab) < 1


def test_it_is_removed(shop_lab: TestLab) -> None:
    run = shop_lab.playbook("remove", "--limit", PAYMENT)
    assert run.code == 0, run.output
    places = "/app /etc/payment /etc/systemd/system/payment* /usr/bin/payment"
    left = f"ls -d {places} 2> /dev/null; getent passwd roboshop; :"
    assert shop_lab.run(PAYMENT, "sh", "-c", left) == ""
