"""Each alert is proven by promtool to fire when it should and to be silent when it should, and says what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dispatch_app import health
from dispatch_app.ledgers.port import Backlog
from tests.lab import LabError
from tests.lab.ansible import ROOT
from tests.prometheus import MONITORING, asked_of, metrics, rules, tool

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("*.yml"))
README = (ROOT / "roles" / "monitoring" / "README.md").read_text()
ALERTS = [rule for rule in rules() if "alert" in rule]
# What RabbitMQ 3.10 and later and the node exporter tell, as far as it is asked for, seen in a scrape of the lab.
OTHERS = (HERE / "scraped.txt").read_text().split()
each = pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])


@pytest.fixture(scope="module")
def promtool() -> Path:
    try:
        return tool("promtool")
    except LabError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_are_silent_when_they_should(promtool: Path, case: Path) -> None:
    done = subprocess.run([promtool, "test", "rules", case], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_never_fires_and_one_that_always_does_are_found(promtool: Path, tmp_path: Path) -> None:
    text = (MONITORING / "rules" / "hosts.yml").read_text()
    case = (HERE / "hosts.yml").read_text().replace("../../../templates/monitoring/rules", str(tmp_path))
    (tmp_path / "case.yml").write_text(case)
    for threshold, outcome in (("> 30", 0), ("> 3000", 1), ("> 3", 1)):
        (tmp_path / "hosts.yml").write_text(text.replace("> 30", threshold))
        done = subprocess.run([promtool, "test", "rules", tmp_path / "case.yml"], capture_output=True, text=True)
        assert done.returncode == outcome, done.stdout


@each
def test_every_alert_is_seen_silent_on_and_off_again(rule: dict[str, Any]) -> None:
    found = [
        case for file in CASES for case in yaml.safe_load(file.read_text())["tests"] if case["name"] == rule["alert"]
    ]
    ways = [[bool(look["exp_samples"]) for look in case["promql_expr_test"]] for case in found]
    assert any(re.search("01+0", "".join(str(int(on)) for on in way)) for way in ways)
    for case in found:
        for look in case["promql_expr_test"]:
            assert f'alertname="{rule["alert"]}"' in look["expr"]


@each
def test_every_alert_says_how_grave_it_is_what_it_means_and_which_command_answers_it(rule: dict[str, Any]) -> None:
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "command"}
    command = rule["annotations"]["command"].split()
    if command[0] == "ansible-playbook":
        assert (ROOT / command[1]).is_file() or command[1] == "playbooks/backup.yml"
    else:
        assert command[:2] in (["dispatch", "dead"], ["ansible", "{{"])
    severity = rule["labels"]["severity"]
    assert re.search(rf"^\| `{rule['alert']}` \| {severity} \| .+ \| `{command[0]} .+` \|$", README, re.MULTILINE)


def test_the_readme_lists_no_alert_that_is_gone() -> None:
    listed = re.findall(r"^\| `((?:Dispatch|RabbitMQ|Host)\w+)` \|", README, re.MULTILINE)
    assert listed == [rule["alert"] for rule in ALERTS]


def test_every_metric_that_is_asked_for_is_there(tmp_path: Path) -> None:
    state = health.State("robot-shop:orders")
    state.directory, state.certificate_end, state.backlog = tmp_path, 1.0, lambda: Backlog(1, 2.0)
    state.effects["hook", "done"] = state.retried["hook-failed"] = 1
    ours = set(re.findall(r"^([a-z_]+)[ {]", health.exposition(state, 1).decode(), re.MULTILINE))
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    ours.add("dispatch_backup_last_success_timestamp_seconds")
    assert asked_of() - ours - recorded - {"up"} == set(OTHERS)


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (le) (rate(a_bucket{b="c", d=~"e|f"}[5m])) > 0 and on () g == 1', {"a_bucket", "g"}),
        ("predict_linear(h[6h], 86400) < 0 or i:j:k offset 5m", {"h", "i:j:k"}),
        ("time() - l > 2 * 86400 unless max(m_n)", {"l", "m_n"}),
    ],
)
def test_the_metrics_of_an_expression_are_told(expression: str, names: set[str]) -> None:
    assert metrics(expression) == names
