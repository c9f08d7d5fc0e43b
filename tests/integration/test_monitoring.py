"""What watches: Prometheus and Alertmanager on a host of their own, and an alert of each severity on its way."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.integration.conftest import booted, until
from tests.lab.ansible import Run, playbook
from tests.lab.hosts import Host, Lab, execute
from tests.lab.inventory import copied
from tests.prometheus import asked_of, rules

pytestmark = pytest.mark.long

BROKER, DISPATCH, WATCHING = "watched-broker", "watched-dispatch", "watching"
PROMETHEUS, ALERTMANAGER = 22890, 22893
# What has no value while nothing of the kind is set up here.
ABSENT = {
    "dispatch_backup_last_success_timestamp_seconds", "dispatch_broker_certificate_end_timestamp_seconds",
    "dispatch_effect_held_seconds", "dispatch_effects_total", "dispatch_events_oldest_seconds",
    "dispatch_events_pending", "dispatch_orders_retried_total",
    # These need half an hour.
    "dispatch:orders_waiting:usual1d",
    # The lab's containers have no file system of their own.
    "node_filesystem_avail_bytes", "node_filesystem_readonly",
}  # fmt: skip


@dataclass(frozen=True)
class Site:
    """The hosts, and how to ask the one that watches."""

    client: docker.DockerClient
    lab: Lab
    inventory: Path

    def play(self, book: str, *arguments: str, **variables: object) -> Run:
        return playbook(book, *arguments, "-e", json.dumps(variables), inventory=self.inventory)

    def run(self, host: str, *command: str) -> str:
        code, output = execute(self.client.containers.get(host), *command)
        assert code == 0, output
        return output

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression gives now."""
        return list(
            _get(PROMETHEUS, f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")["data"]["result"]
        )

    def rules(self) -> list[dict[str, Any]]:
        """The groups of rules that Prometheus has loaded."""
        return list(_get(PROMETHEUS, "/api/v1/rules")["data"]["groups"])

    def ringing(self) -> dict[str, dict[str, Any]]:
        """The alerts that Alertmanager has, by their names."""
        return {alert["labels"]["alertname"]: alert for alert in _get(ALERTMANAGER, "/api/v2/alerts")}


def _get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("watched")
    hosts = (
        Host(BROKER, "rabbitmq", 22801),
        Host(DISPATCH, "dispatch", 22802),
        Host(WATCHING, "monitoring", 22803, ((9090, PROMETHEUS), (9093, ALERTMANAGER))),
    )
    lab = Lab("watched", directory / ".lab", hosts)
    with booted(lab) as client:
        (lab.state / "amqp_password").write_text(uuid.uuid4().hex + "\n")
        made = Site(client, lab, copied(lab, directory, BROKER))
        for book in ("site", "monitoring"):
            if book == "monitoring":
                preview = made.play(book, "--check", "--diff")
                assert preview.code == 0, preview.output
            run = made.play(book)
            assert run.code == 0, run.output
        yield made


def test_a_second_run_changes_nothing_and_everything_is_asked(site: Site) -> None:
    run = site.play("monitoring")
    assert (run.code, run.changed) == (0, 0), run.output
    wanted = {
        ("dispatch", DISPATCH), ("rabbitmq", BROKER), ("rabbitmq-queues", BROKER), ("prometheus", WATCHING),
        ("alertmanager", WATCHING), *(("node", host) for host in (BROKER, DISPATCH, WATCHING)),
    }  # fmt: skip
    # Those of the package's own configuration are seen for five minutes after the restart that ended them.
    until(lambda: {_job(sample) for sample in site.query("up == 1")} == wanted, 360)


def _job(sample: dict[str, Any]) -> tuple[str, str]:
    return sample["metric"]["job"], sample["metric"]["instance"]


def test_every_metric_that_rules_and_dashboard_ask_for_is_there(site: Site) -> None:
    site.run(DISPATCH, "dispatch", "publish", "--count", "20")

    def missing() -> set[str]:
        return {name for name in asked_of() if not site.query(f'{{__name__="{name}"}}')} - ABSENT

    until(lambda: not missing(), 120)


def test_the_rules_are_those_of_the_repository(site: Site) -> None:
    groups = site.rules()
    assert {rule["name"] for group in groups for rule in group["rules"]} == {
        rule.get("alert") or rule["record"] for rule in rules()
    }
    assert not [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")]


@pytest.mark.parametrize(
    ("alert", "severity", "fault", "fix"),
    [
        ("DispatchDown", "critical", ["systemctl", "stop", "dispatch"], ["systemctl", "start", "dispatch"]),
        (
            "DispatchDeadLetters",
            "warning",
            ["sh", "-c", "echo no order | dispatch publish --file -"],
            ["dispatch", "dead", "export", "--all"],
        ),
    ],
)
def test_a_fault_turns_its_alert_on_and_the_fix_turns_it_off(
    site: Site,
    alert: str,
    severity: str,
    fault: list[str],
    fix: list[str],
    record_property: Callable[[str, object], None],
) -> None:
    until(lambda: alert not in site.ringing(), 600)
    began = time.monotonic()
    site.run(DISPATCH, *fault)
    until(lambda: alert in site.ringing(), 300)
    on = time.monotonic() - began
    ringing = site.ringing()[alert]
    assert ringing["labels"]["severity"] == severity
    assert ringing["annotations"]["command"]
    began = time.monotonic()
    site.run(DISPATCH, *fix)
    until(lambda: alert not in site.ringing(), 600)
    off = time.monotonic() - began
    record_property(alert, f"on after {on:.0f} s, off {off:.0f} s after the fix")
    print(
        f"{alert} ({severity}): on {on:.0f} s after the fault, off {off:.0f} s after the fix: {ringing['annotations']}"
    )


def test_what_amtool_refuses_changes_nothing(site: Site) -> None:
    before = site.run(WATCHING, "cat", "/etc/prometheus/alertmanager.yml")
    run = site.play("monitoring", monitoring_routes=[{"receiver": "not-there"}])
    assert run.code != 0
    assert "amtool refuses what prometheus-alertmanager is to run with; nothing has changed" in run.output
    assert run.changed == 0
    assert site.run(WATCHING, "cat", "/etc/prometheus/alertmanager.yml") == before


def test_a_receiver_comes_in_by_a_reload_and_its_secret_is_in_a_file_alone(site: Site) -> None:
    pid = site.run(WATCHING, "systemctl", "show", "-p", "MainPID", "prometheus-alertmanager")
    secret = uuid.uuid4().hex
    hook = {
        "url": "http://127.0.0.1:9/",
        "http_config": {"authorization": {"credentials_file": "/etc/prometheus/secrets/hook"}},
    }
    variables = {
        "monitoring_receivers": [{"name": "hook", "webhook_configs": [hook]}],
        "monitoring_secrets": {"hook": secret},
    }
    run = site.play("monitoring", "--diff", "-v", **variables)
    assert run.code == 0, run.output
    assert secret not in run.output
    assert run.recap[WATCHING]["changed"] == 1
    assert site.run(WATCHING, "systemctl", "show", "-p", "MainPID", "prometheus-alertmanager") == pid
    assert _get(ALERTMANAGER, "/api/v2/receivers") == [{"name": "hook"}]
    assert site.run(WATCHING, "stat", "-c", "%a %U %G", "/etc/prometheus/secrets/hook") == "640 root prometheus"
    assert site.run(WATCHING, "cat", "/etc/prometheus/secrets/hook") == secret
    run = site.play("monitoring")
    assert run.code == 0, run.output
    assert _get(ALERTMANAGER, "/api/v2/receivers") == [{"name": "nobody"}]
    assert execute(site.client.containers.get(WATCHING), "test", "-e", "/etc/prometheus/secrets/hook")[0] != 0


def test_the_page_for_people_is_reached_where_the_metrics_are(site: Site) -> None:
    page = site.run(WATCHING, "curl", "-fsS", f"http://{DISPATCH}:9672/")
    assert f"<h1>Dispatch on {DISPATCH}</h1>" in page
    assert "Consuming." in page
