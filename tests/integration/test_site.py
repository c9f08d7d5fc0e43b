"""The main job on real hosts, over SSH: what `make lab` and the README promise."""

from __future__ import annotations

import json
import re
import shlex
import uuid
import zipfile
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.conftest import (
    BROKER,
    DISPATCH,
    FRESH,
    OTHER_BROKER,
    UNUSED_ADDRESS,
    TestLab,
    order,
    unit_by_hand,
    until,
)
from tests.lab.ansible import ROOT
from tests.lab.hosts import put


def test_a_second_run_changes_nothing(lab: TestLab) -> None:
    run = lab.playbook("site")
    assert run.code == 0, run.output
    assert run.changed == 0, run.output


def test_check_mode_reports_no_change_on_provisioned_hosts(lab: TestLab) -> None:
    run = lab.playbook("site", "--check", "--diff")
    assert run.code == 0, run.output
    assert run.changed == 0, run.output


def test_the_runbook_s_verification(lab: TestLab) -> None:
    assert lab.run(DISPATCH, "systemctl", "is-enabled", "dispatch") == "enabled"
    status = lab.run(DISPATCH, "systemctl", "status", "dispatch")
    assert "active (running)" in status
    assert "waiting for messages" in lab.run(DISPATCH, "journalctl", "-u", "dispatch", "-e")


def test_an_order_as_payment_publishes_it_is_dispatched(lab: TestLab) -> None:
    published = order()
    lab.publish(json.dumps(published).encode())
    until(lambda: lab.dispatched(published["orderid"]) != [])


def test_find_tells_which_host_dispatched_an_order_and_fails_where_none_did(lab: TestLab) -> None:
    published = order()
    lab.publish(json.dumps(published).encode())
    until(lambda: lab.dispatched(published["orderid"]) != [])
    run = lab.playbook("find", "-e", f"order={published['orderid']}")
    assert run.code == 0, run.output
    assert re.search(rf"Z +{DISPATCH} +{published['orderid']} ", run.output), run.output
    assert run.changed == 0
    run = lab.playbook("find", "-e", "correlation_id=no-such-id")
    assert run.code != 0
    assert "None of the ledgers that could be asked has such an order" in run.output


def test_an_order_of_the_newer_generation_is_dispatched(lab: TestLab) -> None:
    published = {
        "userId": "65f1",
        "userEmail": "dave@example.com",
        "userName": "Dave",
        "items": [{"sku": "HAL-1", "quantity": 1}],
        "total": 2001,
        "cityId": "7",
        "transactionId": str(uuid.uuid4()),
        "status": "PAID",
    }
    with lab.edited("dispatch_amqp_host:", "dispatch_amqp_exchange: roboshop\ndispatch_amqp_host:"):
        run = lab.playbook("dispatch")
        assert run.code == 0, run.output
        lab.publish(json.dumps(published).encode(), exchange="roboshop")
        until(lambda: lab.dispatched(str(published["transactionId"])) != [])


def test_one_line_points_dispatch_at_another_broker(lab: TestLab) -> None:
    published = order()
    with lab.edited(f"dispatch_amqp_host: {BROKER}", f"dispatch_amqp_host: {OTHER_BROKER}"):
        run = lab.playbook("dispatch")
        assert run.code == 0, run.output
        lab.publish(json.dumps(published).encode(), broker=OTHER_BROKER)
        until(lambda: lab.dispatched(published["orderid"]) != [])


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (FRESH, "refuses connections"),
        pytest.param("broker.invalid", "broker.invalid", marks=pytest.mark.long),
        pytest.param(UNUSED_ADDRESS, f"{UNUSED_ADDRESS}:5672", marks=pytest.mark.long),
    ],
)
def test_a_broker_that_does_not_answer_changes_nothing_that_is_live(lab: TestLab, address: str, reason: str) -> None:
    before = lab.run(DISPATCH, "systemctl", "show", "dispatch", "-p", "InvocationID")
    with lab.edited(f"dispatch_amqp_host: {BROKER}", f"dispatch_amqp_host: {address}"):
        run = lab.playbook("dispatch")
        assert run.code != 0
        assert "nothing that is live has changed" in run.output
        assert reason in run.output
        assert f'AMQP_HOST="{BROKER}"' in lab.run(DISPATCH, "cat", "/etc/dispatch/environment")
        assert lab.run(DISPATCH, "ls", "/etc/dispatch").split() == ["credentials", "environment"]
    assert lab.run(DISPATCH, "systemctl", "show", "dispatch", "-p", "InvocationID") == before


@pytest.mark.parametrize("body", [b"not json", b'["not an object"]', b'{"user": "dave"}', b"\xff\xfe", b""])
def test_a_message_that_is_no_order_is_kept_as_a_dead_letter(lab: TestLab, body: bytes) -> None:
    def dead() -> int:
        return len(lab.run(DISPATCH, "dispatch", "dead", "list", "--json").splitlines())

    before = dead()
    lab.publish(body)
    until(lambda: dead() == before + 1)
    assert "NRestarts=0" in lab.run(DISPATCH, "systemctl", "show", "dispatch", "-p", "NRestarts")


def test_the_sandbox_s_score_is_low(lab: TestLab, capsys: pytest.CaptureFixture[str]) -> None:
    # The command exits with 1 above the threshold, which is ten times the score.
    report = lab.run(DISPATCH, "systemd-analyze", "security", "--no-pager", "--threshold=15", "dispatch.service")
    last = report.splitlines()[-1]
    assert "Overall exposure level for dispatch.service" in last
    with capsys.disabled():
        print(f"\n{last}")


def test_the_metrics_on_the_host_count_what_was_dispatched(lab: TestLab) -> None:
    lab.assert_consuming()
    text = lab.run(DISPATCH, "curl", "--silent", "--fail", "http://127.0.0.1:9672/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text + "\n")}
    assert families["dispatch_orders_dispatched"].samples[0].value > 0
    assert families["dispatch_ready"].samples[0].value == 1


@pytest.mark.long
def test_it_consumes_again_after_the_broker_was_restarted(lab: TestLab) -> None:
    cursor = lab.run(DISPATCH, "sh", "-c", "journalctl -u dispatch -n 0 --show-cursor | sed -n 's/^-- cursor: //p'")

    def said() -> str:
        return lab.run(DISPATCH, "journalctl", "-u", "dispatch", "-o", "cat", f"--after-cursor={cursor}")

    before = lab.run(DISPATCH, "systemctl", "show", "dispatch", "-p", "InvocationID")
    lab.run(BROKER, "systemctl", "restart", "rabbitmq-server")
    until(lambda: re.search("connection lost.*waiting for messages", said(), re.DOTALL) is not None, 60)
    assert lab.password not in said()
    assert lab.run(DISPATCH, "systemctl", "show", "dispatch", "-p", "InvocationID") == before
    lab.assert_consuming()


def test_a_preview_shows_the_line_that_would_change_and_changes_nothing(lab: TestLab) -> None:
    state = ("sh", "-c", "sha256sum /etc/dispatch/environment; systemctl show dispatch -p InvocationID")
    before = lab.run(DISPATCH, *state)
    run = lab.playbook("dispatch", "--check", "--diff", "-e", "dispatch_amqp_routing_key=orders.eu")
    assert run.code == 0, run.output
    assert run.recap[DISPATCH]["changed"] > 0
    shown = [line for line in run.output.splitlines() if re.match(r"[+-][^+-]", line)]
    assert shown == ['-AMQP_ROUTING_KEY="orders"', '+AMQP_ROUTING_KEY="orders.eu"']
    assert lab.run(DISPATCH, *state) == before


@pytest.mark.long
def test_back_to_the_release_that_was_live_before(lab: TestLab, newer: Path) -> None:
    def live() -> str:
        """The live release, after its link and the list of releases agree on it."""
        linked = Path(lab.run(DISPATCH, "readlink", "/app/current")).name
        run = lab.playbook("releases")
        assert run.code == 0, run.output
        assert run.changed == 0, run.output
        assert re.findall(r"(\S+)  live since", run.output) == [linked], run.output
        return linked

    first = live()
    run = lab.playbook("dispatch", "-e", f"dispatch_artifact={newer}")
    assert run.code == 0, run.output
    assert live() != first
    run = lab.playbook("rollback")
    assert run.code == 0, run.output
    assert live() == first
    lab.assert_consuming()


# This follows the runbook, with a program that needs no build.
BY_HAND = """
    useradd roboshop
    mkdir /app
    printf '#!/bin/sh\\nexec sleep infinity\\n' > /app/dispatch
    chmod +x /app/dispatch
    cp /root/dispatch.service /etc/systemd/system/
    systemctl daemon-reload
    systemctl enable --quiet dispatch
    systemctl start dispatch
"""


@pytest.mark.long
def test_a_service_that_was_set_up_by_hand_is_taken_over(lab: TestLab, wont_start: Path) -> None:
    run = lab.playbook("remove", "--limit", DISPATCH)
    assert run.code == 0, run.output
    put(lab.host(DISPATCH), "/root", {"dispatch.service": unit_by_hand(BROKER, "roboshop123").encode()})
    lab.run(DISPATCH, "sh", "-ec", BY_HAND)
    state = """
        sha256sum /etc/systemd/system/dispatch.service
        systemctl show dispatch -p ActiveState,SubState,UnitFileState,FragmentPath,DropInPaths
        ps -C sleep -o user=,args=
    """
    before = lab.run(DISPATCH, "sh", "-ec", state)
    assert "roboshop sleep infinity" in before

    run = lab.playbook("dispatch", "-e", f"dispatch_artifact={wont_start}")
    assert run.code != 0
    assert "The unit and its settings are back, and healthy." in run.output
    assert "broken: it does not start" in run.output
    assert lab.run(DISPATCH, "sh", "-ec", state) == before

    run = lab.playbook("dispatch")
    assert run.code == 0, run.output
    lab.assert_consuming()
    again = lab.playbook("dispatch")
    assert again.changed == 0, again.output
    left = "grep -rl roboshop123 /etc/systemd /run/systemd /etc/dispatch /proc/[0-9]*/environ 2>/dev/null || :"
    assert lab.run(DISPATCH, "sh", "-c", left) == ""
    assert "roboshop123" not in lab.run(DISPATCH, "systemctl", "show", "dispatch", "--all")
    lab.run(DISPATCH, "rm", "/app/dispatch")


@pytest.mark.long
def test_an_artifact_by_url_with_requirements_alone_is_built_from_an_index(lab: TestLab, tmp_path: Path) -> None:
    # The broker's host serves the artifact, and the index with a certificate of its own.
    wheels = ROOT / "dist" / "dispatch.zip"
    slim = tmp_path / "slim.zip"
    with zipfile.ZipFile(wheels) as source, zipfile.ZipFile(slim, "w") as target:
        for name in source.namelist():
            if not name.startswith(("wheels/", "installer/")):
                target.writestr(name, source.read(name))
    lab.run(BROKER, "mkdir", "-p", "/srv/index")
    lab.put(BROKER, "/srv", slim, wheels)
    script = f"""
        apt-get update -qq && apt-get install -qq -y --no-install-recommends openssl unzip nginx-light >/dev/null
        cd /srv && unzip -q -o dispatch.zip 'wheels/*'
        for wheel in wheels/*.whl; do
          name=$(basename $wheel | cut -d- -f1 | tr _ -); mkdir -p index/$name && cp $wheel index/$name/
        done
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={BROKER} -addext subjectAltName=DNS:{BROKER} \
          -keyout key.pem -out certificate.pem 2>/dev/null
        echo 'server {{ listen 80; listen 443 ssl; root /srv; autoindex on;
          ssl_certificate /srv/certificate.pem; ssl_certificate_key /srv/key.pem; }}' > /etc/nginx/sites-enabled/default
        chmod -R a+rX /srv && systemctl reload-or-restart nginx
    """
    lab.run(BROKER, "sh", "-ec", script)
    certificate = lab.run(BROKER, "cat", "/srv/certificate.pem")
    lab.run(DISPATCH, "sh", "-c", f"echo {shlex.quote(certificate)} > /etc/ssl/index.pem")
    digest = lab.run(BROKER, "sha256sum", "/srv/slim.zip").split()[0]
    variables = {
        "dispatch_artifact": f"http://{BROKER}/slim.zip",
        "dispatch_artifact_sha256": digest,
        "dispatch_index_url": f"https://{BROKER}/index",
        "dispatch_ca_bundle": "/etc/ssl/index.pem",
    }
    run = lab.playbook("dispatch", "-e", json.dumps(variables))
    assert run.code == 0, run.output
    assert digest[:12] in lab.run(DISPATCH, "readlink", "/app/current")
    again = lab.playbook("dispatch", "-e", json.dumps(variables))
    assert again.code == 0, again.output
    assert again.changed == 0, again.output
    requests = lab.run(BROKER, "cat", "/var/log/nginx/access.log")
    assert requests.count("GET /slim.zip") == 1
    assert ".whl" in requests

    published = order()
    lab.publish(json.dumps(published).encode())
    until(lambda: lab.dispatched(published["orderid"]) != [])
    assert lab.playbook("dispatch").code == 0


@pytest.mark.long
def test_remove_takes_everything_but_the_ledger_and_site_brings_it_back(lab: TestLab) -> None:
    published = order()
    lab.publish(json.dumps(published).encode())
    until(lambda: lab.dispatched(published["orderid"]) != [])

    hosts = ("--limit", f"{DISPATCH},{OTHER_BROKER}")
    run = lab.playbook("remove", *hosts)
    assert run.code == 0, run.output
    left = lab.run(
        DISPATCH, "sh", "-c", "ls -d /app /etc/dispatch /usr/bin/dispatch /etc/systemd/system/dispatch* || :"
    )
    assert "cannot access" in left
    assert not [line for line in left.splitlines() if line.startswith("/")]
    assert lab.run(DISPATCH, "sh", "-c", "getent passwd roboshop || echo gone") == "gone"
    assert lab.run(DISPATCH, "ls", "/var/lib/dispatch/ledger.db")
    assert lab.run(OTHER_BROKER, "sh", "-c", "command -v rabbitmqctl || echo gone") == "gone"

    run = lab.playbook("site", *hosts)
    assert run.code == 0, run.output
    assert lab.dispatched(published["orderid"]) != []

    run = lab.playbook("remove", "-e", "dispatch_remove_ledger=true", *hosts)
    assert run.code == 0, run.output
    assert lab.run(DISPATCH, "sh", "-c", "test -e /var/lib/dispatch || echo gone") == "gone"
    assert lab.playbook("site", *hosts).code == 0
