"""All faults of monitoring's variables are said at once, and the configuration is one that Prometheus' tools take."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import LabError
from tests.lab.ansible import ROOT
from tests.prometheus import MONITORING, tool

values = importlib.import_module("roles.monitoring.filter_plugins.monitoring_values")

MAIL = {"name": "mail", "email_configs": [{"to": "ops@example.com", "from": "x@example.com", "smarthost": "mail:25"}]}
GOOD: dict[str, Any] = {
    "monitoring_address": "127.0.0.1",
    "monitoring_targets": {"dispatch": {"dispatch-1": "10.0.2.11:9672", "dispatch-2": "[fd00::2]:9672"}},
    "monitoring_receivers": [MAIL],
    "monitoring_routes": [],
    "monitoring_secrets": {"mail": "not-to-be-seen"},
}


def host(name: str, **variables: str) -> dict[str, str]:
    return {"inventory_hostname": name, **variables}


def found(**changed: Any) -> list[str]:
    return list(values.monitoring_faults({**GOOD, **changed}))


def test_good_values_have_no_fault() -> None:
    assert found() == []
    assert found(monitoring_receivers=[], monitoring_secrets={}, monitoring_address="::1") == []
    assert values.monitoring_exporter_faults({"monitoring_exporter_address": ""}) == []
    assert values.monitoring_exporter_faults({"monitoring_exporter_address": "10.0.2.11"}) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"monitoring_address": "10.0 5"}, "monitoring_address is '10.0 5'"),
        ({"monitoring_address": "::"}, "monitoring_address is ::, which is every address of the host.*ssh -L"),
        ({"monitoring_targets": []}, "monitoring_targets is no dictionary of dictionaries"),
        ({"monitoring_targets": {"dispatch": "x"}}, "monitoring_targets is no dictionary of dictionaries"),
        ({"monitoring_targets": {"dispatch": {"dispatch-1": ""}}}, "dispatch_metrics of dispatch-1 names nothing"),
        ({"monitoring_targets": {"node": {"db-1": "db 1:9100"}}}, "monitoring_targets.node.db-1 is 'db 1:9100'"),
        ({"monitoring_targets": {"node": {"db-1": "10.0.4.11"}}}, "monitoring_targets.node.db-1 is '10.0.4.11'"),
        ({"monitoring_receivers": "mail"}, "monitoring_receivers is no list of dictionaries"),
        ({"monitoring_routes": ["mail"]}, "monitoring_routes is no list of dictionaries"),
        ({"monitoring_receivers": [{}]}, r"monitoring_receivers\[0\] has no name"),
        (
            {"monitoring_receivers": [{"name": "a", "email_configs": [{"auth_password": "not-to-be-seen"}]}]},
            r"monitoring_receivers\[0\] has auth_password, .* into monitoring_secrets.*into auth_password_file",
        ),
        (
            {"monitoring_receivers": [{"name": "a", "pagerduty_configs": [{"routing_key": "not-to-be-seen"}]}]},
            r"monitoring_receivers\[0\] has routing_key",
        ),
        ({"monitoring_secrets": ["x"]}, "monitoring_secrets is no dictionary"),
        ({"monitoring_secrets": {"../x": "y"}}, "monitoring_secrets has the name '../x'"),
        ({"monitoring_secrets": {"mail": 7}}, "monitoring_secrets.mail is no text"),
    ],
)
def test_a_bad_value_is_named_with_what_to_do(changed: dict[str, Any], said: str) -> None:
    (fault,) = found(**changed)
    assert re.search(said, fault)
    assert "not-to-be-seen" not in fault


def test_a_bad_address_of_an_exporter_is_named() -> None:
    (fault,) = values.monitoring_exporter_faults({"monitoring_exporter_address": "eth0:9100"})
    assert fault.startswith("monitoring_exporter_address is 'eth0:9100'")


def test_each_host_is_asked_where_its_variables_say() -> None:
    hosts = {
        "dispatch": [
            host("dispatch-1", dispatch_metrics="10.0.2.11"),
            host("dispatch-2", dispatch_metrics="dispatch-2.shop:9700", ansible_host="1.2.3.4"),
            host("dispatch-3", dispatch_metrics="%eth0:9700", ansible_host="10.0.2.13"),
            host("dispatch-4", dispatch_metrics="[fd00::4]"),
            host("dispatch-5", dispatch_metrics="unix:/run/dispatch/http.sock"),
            host("dispatch-6"),
        ],
        "rabbitmq": [host("broker", rabbitmq_prometheus_address="10.0.1.20"), host("broker-2", ansible_host="fd00::2")],
        "node": [host("db-1", ansible_host="127.0.0.1", monitoring_reached_at="db-1.shop")],
    }
    assert values.monitoring_targets(hosts) == {
        "dispatch": {
            "dispatch-1": "10.0.2.11:9672",
            "dispatch-2": "dispatch-2.shop:9700",
            "dispatch-3": "10.0.2.13:9700",
            "dispatch-4": "[fd00::4]:9672",
            "dispatch-5": "",
            "dispatch-6": "",
        },
        "rabbitmq": {"broker": "10.0.1.20:15692", "broker-2": "[fd00::2]:15692"},
        "node": {"db-1": "db-1.shop:9100"},
    }
    assert values.monitoring_targets({"dispatch": [], "rabbitmq": [], "node": []}) == {}


@pytest.mark.parametrize("queue", ["orders", "paid.orders"])
def test_the_queues_that_matter_are_asked_for_and_marked(queue: str) -> None:
    text = values.monitoring_prometheus(
        {"rabbitmq": {"broker": "10.0.1.20:15692"}}, "watching", "127.0.0.1", queue, "shop"
    )
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    assert jobs["rabbitmq-queues"]["params"]["vhost"] == ["shop"]
    marks = [config for config in jobs["rabbitmq-queues"]["metric_relabel_configs"] if "target_label" in config]

    def stage(name: str) -> list[str]:
        return [mark["replacement"] for mark in marks if re.fullmatch(mark["regex"], name)]

    assert stage(queue) == ["orders"]
    assert stage(f"{queue}.dead") == ["dead"]
    assert stage(f"{queue}.retry.30s") == ["retry"]
    assert stage(queue.replace(".", "x") + "x") == stage("carts") == []


def test_prometheus_tools_take_the_configuration(tmp_path: Path) -> None:
    try:
        promtool, amtool = tool("promtool"), tool("amtool")
    except LabError as error:
        pytest.skip(str(error))
    (tmp_path / "rules").mkdir()
    for file in (MONITORING / "rules").glob("*.yml"):
        (tmp_path / "rules" / file.name).write_text(file.read_text())
    targets = {**GOOD["monitoring_targets"], "rabbitmq": {"broker": "10.0.1.20:15692"}}
    (tmp_path / "prometheus.yml").write_text(values.monitoring_prometheus(targets, "watching", "::1", "my-orders", "/"))
    (tmp_path / "alertmanager.yml").write_text(values.monitoring_alertmanager([MAIL], [{"receiver": "mail"}]))
    (tmp_path / "nobody.yml").write_text(values.monitoring_alertmanager([], []))
    checks: list[list[str | Path]] = [
        [promtool, "check", "config", "prometheus.yml"],
        [amtool, "check-config", "alertmanager.yml", "nobody.yml"],
    ]
    for check in checks:
        done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_for_the_rhel_family_uses_the_same_rules_and_targets() -> None:
    example = ROOT / "roles" / "monitoring" / "collection.yml.txt"
    text = example.read_text()
    plays = yaml.safe_load(text)
    assert [play["hosts"] for play in plays] == ["dispatch:rabbitmq:postgresql:payment:monitoring", "monitoring"]
    assert "templates/monitoring/rules/*.yml" in text
    assert "monitoring_scrape_configs" in text
    assert "monitoring_scrape_configs:" in (example.parent / "tasks" / "describe.yml").read_text()
    refusal = (example.parent / "tasks" / "system.yml").read_text()
    assert "prometheus.prometheus" in refusal
    assert example.name in refusal
