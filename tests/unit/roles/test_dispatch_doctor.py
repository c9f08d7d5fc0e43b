"""The reports of a fleet, collected: what the playbook shows of them, and what becomes of a report nobody can trust."""

from __future__ import annotations

import copy
import importlib
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

from dispatch_app.doctor import report as rendering
from dispatch_app.doctor import shape
from dispatch_app.doctor.checks import CHECKS
from dispatch_app.doctor.table import BROKER, CONTROLLER, FOUND, OK, SKIPPED

doctor = importlib.import_module("roles.dispatch.filter_plugins.dispatch_doctor")

INVENTORY = ["/etc/an inventory"]
GIVEN = "-i '/etc/an inventory'"
EVIL = '"><script>alert(1)</script>{{ 77 * 77 }}\x1b[2J\nerror: forged'
FLOW = {"broker": "10.0.1.20", "vhost": "/", "exchange": "robot-shop", "queue": "orders", "dead": 2, "retry": 0}


def report(
    *ids: str, evidence: str = "seen", where: str = "host", command: str = "mend", **more: Any
) -> dict[str, Any]:
    """A report as a doctor makes it, with these findings."""
    known = {check.id: check for check in CHECKS}
    findings = [
        {
            "id": name, "area": known[name].area, "severity": known[name].severity, "about": known[name].about,
            "evidence": evidence, "cause": f"The cause of {name}.", "fix": {"where": where, "command": command},
        }
        for name in ids
    ]  # fmt: skip
    checks = [
        {"id": c.id, "area": c.area, "title": c.title, "state": FOUND if c.id in ids else OK, "because": ""}
        for c in CHECKS
    ]
    return {
        "host": "a", "doctor": "1.0.0", "release": "0123456789ab", "healthy": not ids, "exit_code": 0,
        "findings": findings, "checks": checks, "areas": rendering.areas(findings, checks), "flow": dict(FLOW),
        "components": {"pika": "1.4.4", "prometheus_client": "0.26.0"}, "seconds": 0.5, **more,
    }  # fmt: skip


def fleet(**reports: dict[str, Any]) -> dict[str, Any]:
    results = {host: {"stdout": f"Welcome!\n{json.dumps(one)}\n"} for host, one in reports.items()}
    return dict(doctor.collect(results, INVENTORY))


def told(collected: dict[str, Any]) -> dict[str, str]:
    """What each host fails the play with."""
    return {host: rendering.host_text(collected, host) for host in collected["hosts"]}


# -- a report -------------------------------------------------------------------------------


def test_a_healthy_fleet_fails_no_play() -> None:
    collected = fleet(a=report(), b=report())
    assert told(collected) == {"a": "", "b": ""}
    assert rendering.fleet_text(collected, "/x.html")[-1] == "The page: /x.html"


def test_a_fault_of_a_host_s_is_that_host_s() -> None:
    collected = fleet(a=report("service-stopped"), b=report())
    assert told(collected) == {
        "a": "error: service-stopped\n  seen: seen\n  cause: The cause of service-stopped.\n"
        "  fix, on the host, as root: mend",
        "b": "",
    }


@pytest.mark.parametrize("host", ["a", "web;touch x;-1"])
def test_a_fix_for_this_machine_names_the_host_and_the_inventory(host: str) -> None:
    remove = "ansible {host} --become -m ansible.builtin.file -a 'path=/app/releases/1 state=absent'"
    ill = report("venv-missing", where=CONTROLLER, command=f"{remove} && ansible-playbook playbooks/dispatch.yml")
    collected = fleet(**{host: ill})
    command = collected["hosts"][host]["findings"][0]["fix"]["command"]
    quoted = shlex.quote(host.replace(" ", "?"))  # a space would end the name of a host
    assert command == (
        f"ansible {GIVEN} {quoted} --become -m ansible.builtin.file -a 'path=/app/releases/1 state=absent'"
        f" && ansible-playbook {GIVEN} playbooks/dispatch.yml"
    )


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"msg": "no route", "unreachable": True}, "no route"),
        ({"stdout": "", "stderr": "python3: not found", "rc": 127}, "python3: not found"),
        ({"stdout": '{"host": '}, "its report can't be read"),
        ({"stdout": '{"host": ' + "[" * 100_000}, "its report can't be read"),
        ({"stdout": "x" * 10_000}, "x" * 2000),
    ],
)
def test_without_a_report_a_host_is_ill_and_says_why(result: dict[str, Any], why: str) -> None:
    collected = doctor.collect({"a b": result}, INVENTORY)
    text = rendering.host_text(collected, "a b")
    assert text.startswith("error: not-examined\n")
    assert why in text
    assert len(text) < 2500
    assert f"fix, on this machine: ansible 'a?b' {GIVEN} -m ansible.builtin.ping" in text
    assert rendering.fleet_text(collected, "")[1] == "a b   could not be examined"


BROKEN: dict[str, Any] = {
    "no areas": lambda r: r.pop("areas"),
    "an area too few": lambda r: r["areas"].pop("flow"),
    "markup for seconds": lambda r: r.update(seconds=EVIL),
    "a boolean for seconds": lambda r: r.update(seconds=True),
    "markup for a severity": lambda r: r["findings"][0].update(severity=EVIL),
    "a finding of no area": lambda r: r["findings"][0].update(area=EVIL),
    "a list for a severity": lambda r: r["findings"][0].update(severity=["error"]),
    "markup for an area's state": lambda r: r["areas"].update(flow=EVIL),
    "markup for a check's state": lambda r: r["checks"][0].update(state=EVIL),
    "markup for a depth": lambda r: r["flow"].update(dead=EVIL),
    "findings that are none": lambda r: r.update(findings={}),
    "a fix without a command": lambda r: r["findings"][0]["fix"].pop("command"),
    "a release that is a number": lambda r: r.update(release=7),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_report_of_another_shape_is_none_and_spoils_no_other(name: str) -> None:
    broken = copy.deepcopy(report("service-stopped"))
    assert shape.problem(broken) is None
    BROKEN[name](broken)
    collected = fleet(a=broken, b=report())
    assert "error: not-examined" in told(collected)["a"]
    assert told(collected)["b"] == ""
    assert "could not be examined" in doctor.page(collected)


@pytest.mark.parametrize(
    "command",
    [
        "touch x", "ansible-playbook playbooks/dispatch.yml; touch x", "ansible-playbook playbooks/remove.yml",
        "ansible {host} --become -m ansible.builtin.file -a 'path=/a;touch state=absent' && touch x",
        "ansible {host} --become -m ansible.builtin.file -a 'path=/{{lookup(\"pipe\",\"id\")}} state=absent'"
        " && ansible-playbook playbooks/dispatch.yml",
        "ansible {host} --become -m ansible.builtin.file -a 'path=/{host} state=absent'"
        " && ansible-playbook playbooks/dispatch.yml",
    ],
)  # fmt: skip
def test_a_host_has_nothing_of_its_own_run_on_this_machine(command: str) -> None:
    text = told(fleet(a=report("venv-missing", where=CONTROLLER, command=command)))["a"]
    assert "error: not-examined" in text
    assert command not in text


# -- what concerns several hosts ------------------------------------------------------------


def test_a_broker_s_fault_is_told_once_and_makes_no_host_ill() -> None:
    ill = {host: report("dead-letters", evidence=f"{depth} messages") for host, depth in (("a", 2), ("b", 3))}
    collected = fleet(**ill, c=report(flow={}))
    assert [one["healthy"] for one in collected["hosts"].values()] == [True, True, True]
    text = told(collected)
    assert text["a"].startswith("warning: dead-letters (RabbitMQ at 10.0.1.20)\n  seen: a: 2 messages; b: 3 messages\n")
    assert text["a"].endswith("  fix, on one of a, b, as root: mend")
    assert (text["b"], text["c"]) == ("", "")
    lines = rendering.fleet_text(collected, "")
    assert [line for line in lines if "FAULT" in line or "warning" in line] == []
    assert "RabbitMQ at 10.0.1.20: dead-letters: a: 2 messages; b: 3 messages" in lines
    page = doctor.page(collected)
    assert page.count("The cause of dead-letters.") == 1
    assert "3 of 3 hosts are healthy." in page
    assert "the fleet needs attention" in page


def test_a_broker_s_fault_that_one_of_its_hosts_does_not_see_stays_with_the_others() -> None:
    collected = fleet(a=report("dead-letters"), b=report("dead-letters"), c=report())
    assert [one["healthy"] for one in collected["hosts"].values()] == [False, False, True]
    assert all("warning: dead-letters\n" in told(collected)[host] for host in "ab")


def test_a_host_that_could_not_look_speaks_neither_for_nor_against_it() -> None:
    blind = report("service-stopped")
    for check in blind["checks"]:
        if check["id"] == "dead-letters":
            check.update(state=SKIPPED, because="service-stopped")
    collected = fleet(a=report("dead-letters"), b=blind, c=report("dead-letters"))
    assert [one["hosts"] for one in collected["shared"]] == [["a", "c"]]
    assert "dead-letters" not in told(collected)["b"]


def test_two_brokers_and_two_virtual_hosts_are_told_apart() -> None:
    other = report("dead-letters", flow={**FLOW, "broker": "10.0.1.21"})
    test = report("dead-letters", flow={**FLOW, "vhost": "test"})
    collected = fleet(a=report("dead-letters"), b=other, c=test)
    assert [one["who"] for one in collected["shared"]] == [
        "RabbitMQ at 10.0.1.20", "RabbitMQ at 10.0.1.21", "RabbitMQ at 10.0.1.20, virtual host test",
    ]  # fmt: skip
    assert all(told(collected).values())


def test_what_differs_in_its_cause_or_fix_is_not_the_same_fault() -> None:
    collected = fleet(a=report("dead-letters"), b=report("dead-letters", command="mend otherwise"))
    assert collected["shared"] == []
    assert all(told(collected).values())


def test_a_host_s_own_fault_stays_beside_the_broker_s() -> None:
    collected = fleet(a=report("dead-letters", "unit-disabled"), b=report("dead-letters"))
    assert [one["id"] for one in collected["hosts"]["a"]["findings"]] == ["unit-disabled"]
    assert collected["hosts"]["a"]["areas"]["flow"] == OK
    assert [one["healthy"] for one in collected["hosts"].values()] == [False, True]


def test_the_broker_has_faults_of_its_own() -> None:
    about = {check.id for check in CHECKS if check.about == BROKER}
    assert {"dead-letters", "broker-alarm", "queue-unbound"} <= about
    assert not {check.id for check in CHECKS if check.area in ("release", "service", "settings", "ledger")} & about


def test_different_releases_are_a_warning_to_all() -> None:
    collected = fleet(a=report(), b=report(release="ba9876543210"), c=report(release=None))
    for text in told(collected).values():
        assert "warning: two-versions (the fleet)\n  seen: live in this fleet: 0123456789ab, ba9876543210" in text
        assert f"fix, on this machine: ansible-playbook {GIVEN} playbooks/dispatch.yml" in text


# -- the page -------------------------------------------------------------------------------


class Page(HTMLParser):
    """The elements of a page, and the words in its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.classes: set[str] = set()
        self.policy = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.elements.add(tag)
        self.classes |= set((named.get("class") or "").split())
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"] or ""


def test_nothing_that_a_host_says_is_markup() -> None:
    ill = report("service-stopped", "dead-letters", evidence=EVIL, command=EVIL, release=EVIL)
    ill["host"] = EVIL
    ill["findings"][0].update(id=EVIL, cause=EVIL)
    ill["checks"][0].update(title=EVIL, because=EVIL, state="unknown")
    ill["flow"].update(broker=EVIL, exchange=EVIL, queue=EVIL, vhost=EVIL)
    results = {EVIL: {"stdout": json.dumps(ill)}, "b": {"msg": EVIL}}
    text = doctor.page(doctor.collect(results, [EVIL]))
    healthy = Page(doctor.page(fleet(a=report("service-stopped", "dead-letters"), b=report())))
    assert Page(text).elements <= healthy.elements
    assert "script" not in Page(text).elements
    assert Page(text).classes <= healthy.classes | {"unknown", "skipped", "whole"}
    assert "5929" not in re.sub(r'="[^"]*"|<style>.*?</style>', "", text, flags=re.DOTALL)
    assert "\x1b" not in text


@pytest.mark.parametrize("name", ["web-1", "shop:web-i-0abc", "a,b", "!x", "~x", "-x", "web;touch x", "a b", "*-1"])
def test_a_fix_means_one_host_whatever_its_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps({"all": {"hosts": dict.fromkeys([name, "web-2", "b", "x", "0abc", "i-0abc"])}}))
    inventory = InventoryManager(loader=DataLoader(), sources=[str(file)])
    (word,) = shlex.split(rendering.pattern(name))
    assert not word.startswith("-")
    assert [host.name for host in inventory.get_hosts(word)] == [name]


def test_a_page_may_load_and_run_nothing() -> None:
    page = Page(doctor.page(fleet(a=report())))
    assert page.policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_what_ansible_prints_moves_no_cursor_and_forges_no_line() -> None:
    ill = report("service-stopped", "dead-letters", evidence=EVIL, command=EVIL)
    collected = doctor.collect({EVIL: {"stdout": json.dumps(ill)}, "b": {"msg": EVIL}}, [])
    for text in (*told(collected).values(), "\n".join(rendering.fleet_text(collected, ""))):
        assert all(line.isprintable() for line in text.split("\n"))
        assert not any(line.startswith("error: forged") for line in text.split("\n"))


# -- advisories -----------------------------------------------------------------------------


def test_a_release_that_an_advisory_lists_is_warned_of(tmp_path: Path) -> None:
    affected = [{"package": {"name": "pika", "ecosystem": "PyPI"}, "versions": ["1.4.4"]}]
    file = tmp_path / "advisories.json"
    file.write_text(json.dumps({"id": "CVE-1", "affected": affected}))
    results = {host: {"stdout": json.dumps(report(components=held))} for host, held in
               {"a": {"pika": "1.4.4"}, "b": {"pika": "1.4.5"}, "c": {}}.items()}  # fmt: skip
    collected = doctor.collect(results, INVENTORY, str(file))
    said = told(collected)
    assert said["a"].startswith("warning: version-advised-against\n  seen: pika 1.4.4: CVE-1\n")
    assert f"ansible-playbook {GIVEN} playbooks/dispatch.yml" in said["a"]
    assert (said["b"], said["c"]) == ("", "")
    assert doctor.advisories_fault(str(file)) == ""
    assert doctor.advisories_fault("/nowhere").startswith("dispatch_advisories is /nowhere: /nowhere can't be read")


def test_a_report_whose_components_are_none_is_not_trusted() -> None:
    collected = fleet(a=report(components={"pika": ["1.4.4"]}))
    assert "components.pika has an unknown value" in told(collected)["a"]
