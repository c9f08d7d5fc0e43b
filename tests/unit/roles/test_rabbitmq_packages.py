"""What is to be installed for the wanted versions is worked out before anything changes, or refused by name."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import rabbitmq_flags as flags
from ansible.module_utils import rabbitmq_install as packages
from ansible.module_utils.server_files import RefusedError

module = importlib.import_module("roles.rabbitmq.library.rabbitmq_packages")
stopping = importlib.import_module("roles.rabbitmq.library.rabbitmq_stop")

OLD, NEW = "3.10.8-1.1+deb12u1", "3.10.8-1.1+deb12u2"
ERLANG, NEWER_ERLANG = "1:25.2.3+dfsg-1+deb12u1", "1:25.2.3+dfsg-1+deb12u4"


class System:
    """Debian, whose sources have some versions of RabbitMQ and Erlang. It answers as its commands do."""

    def __init__(self, server: str = "", erlang: str = "", fresh: bool = False) -> None:
        self.installed = {"rabbitmq-server": server, "erlang-base": erlang, "erlang-ssl": erlang}
        self.sources = {"rabbitmq-server": [NEW, OLD], "erlang-base": [NEWER_ERLANG, ERLANG]}
        self.pulled: dict[str, str] = {}  # what apt installs, too
        self.removed = self.broken = ""
        self.index = not fresh
        self.flags: list[dict[str, str]] = []
        self.done: list[str] = []

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "dpkg-query":
            rows = [f"installed\t{'erlang' if 'erlang' in name else name}\t{name}\t{version}\n"
                    for name, version in self.installed.items() if version]  # fmt: skip
            return (
                0,
                "".join([*rows, "config-files\terlang\terlang-dev\t1:24.0\n", "installed\tadduser\tadduser\t3\n"]),
                "",
            )
        if argv[:2] == ["apt-cache", "madison"]:
            there = self.sources[argv[2]] if self.index else []
            return 0, "".join(f"{argv[2]} | {one} | http://deb bookworm/main\n" for one in there for _ in range(2)), ""
        if argv[:2] == ["apt-get", "--simulate"]:
            return self.simulate(argv)
        if argv[-1] == "update":
            self.done.append("update")
            self.index = True
            return 0, "", ""
        if argv[:2] == ["dpkg", "--compare-versions"]:
            order = [*map(self.age, (argv[2], argv[4]))]
            return int(order[0] >= order[1]), "", ""
        if "list_feature_flags" in argv:
            return 0, json.dumps(self.flags), ""
        raise AssertionError(argv)

    def age(self, version: str) -> tuple[object, ...]:
        """What versions compare by here: their numbers, and the last digit."""
        return (*packages.number(version), version[-1])

    def simulate(self, argv: list[str]) -> tuple[int, str, str]:
        if self.broken:
            return 100, "", self.broken
        self.pins = Path(argv[argv.index("-o") + 1].partition("=")[2], packages.PINS).read_text()
        specs = dict(spec.partition("=")[::2] for spec in argv[argv.index("install") + 1 :])
        if "src:erlang" in self.pins and not self.installed["erlang-base"]:
            self.pulled = {"erlang-base": self.pins.split("src:erlang\nPin: version ")[1].split("\n")[0]}
        lines = []
        for name, version in {**specs, **self.pulled}.items():
            before = f"[{self.installed[name]}] " if self.installed.get(name) else ""
            lines.append(f"Inst {name} {before}({version or NEW} Debian:12 [all])\n")
        return 0, "".join([*lines, *([f"Remv {self.removed} [1]\n"] if self.removed else [])]), ""


class Host:
    booted = running = True


def plan(system: System, version: str = "", erlang: str = "", refresh: bool = True) -> dict[str, Any]:
    return dict(packages.plan(packages.Apt(system), version, erlang, refresh))


def test_without_wanted_versions_rabbitmq_is_installed_once_and_left_alone_then() -> None:
    fresh = System(fresh=True)
    found = plan(fresh)
    assert (found["due"], found["version"], found["series"], found["upgrade"]) == (
        ["rabbitmq-server"], "3.10.8", "3.10", False,
    )  # fmt: skip
    assert fresh.done == ["update"]
    there = System(OLD, ERLANG)
    assert plan(there) == {
        "installed": OLD, "version": "3.10.8", "series": "3.10", "due": [], "pins": "", "upgrade": False,
    }  # fmt: skip
    assert there.done == []


def test_another_version_is_an_upgrade_and_the_same_one_is_not() -> None:
    system = System(OLD, ERLANG)
    found = plan(system, NEW)
    assert (found["due"], found["upgrade"]) == ([f"rabbitmq-server={NEW}"], True)
    assert found["pins"] == f"Package: rabbitmq-server\nPin: version {NEW}\nPin-Priority: 995\n" == system.pins
    assert system.done == ["update"]
    for wanted in (OLD, "3.10.8"):
        found = plan(System(OLD, ERLANG), wanted)
        assert (found["due"], found["upgrade"]) == ([], False)
        assert f"Pin: version {OLD}\n" in found["pins"]


def test_the_index_is_fetched_once_in_a_run() -> None:
    system = System(OLD, ERLANG)
    assert plan(system, NEW, refresh=False)["due"]
    assert system.done == []


def test_erlang_is_upgraded_as_a_whole_and_pinned_where_it_is_not_there_yet() -> None:
    found = plan(System(OLD, ERLANG), "", NEWER_ERLANG)
    assert found["due"] == [f"erlang-base={NEWER_ERLANG}", f"erlang-ssl={NEWER_ERLANG}"]
    fresh = System(fresh=True)
    found = plan(fresh, "3.10.8", ERLANG)
    assert found["due"] == [f"rabbitmq-server={NEW}"]
    assert f"Package: src:erlang\nPin: version {ERLANG}\n" in found["pins"]


@pytest.mark.parametrize(
    ("version", "erlang", "said"),
    [
        (
            "9.9.9",
            "",
            f"rabbitmq_version is 9.9.9, which this host's package sources do not have. They have {NEW}, {OLD}",
        ),
        ("", "29.0", f"rabbitmq_erlang_version is 29.0, which .* They have {NEWER_ERLANG.replace('+', '.')}"),
    ],
)
def test_a_version_that_the_sources_lack_is_refused_by_name(version: str, erlang: str, said: str) -> None:
    system = System(OLD, ERLANG)
    with pytest.raises(RefusedError, match=said.replace("+", ".")):
        plan(system, version, erlang)
    assert system.done == ["update"]


def test_a_way_that_rabbitmq_does_not_support_is_refused() -> None:
    system = System("4.0.5-1", "1:27.0-1")
    with pytest.raises(
        RefusedError, match=r"rabbitmq_version is 3\.10\.8-1\.1\+deb12u1, older than the 4\.0\.5-1 .* no way"
    ):
        plan(system, OLD)
    with pytest.raises(RefusedError, match=f"rabbitmq_erlang_version is .*, older than the {NEWER_ERLANG[:6]}"):
        plan(System(OLD, NEWER_ERLANG), "", ERLANG)
    system = System(OLD, NEWER_ERLANG)
    system.sources["erlang-base"].append("1:24.0-1")
    with pytest.raises(RefusedError, match=r"rabbitmq_erlang_version is 1:24\.0-1, older than"):
        plan(system, "", "1:24.0-1")
    system = System(OLD, ERLANG)
    system.sources["rabbitmq-server"].append("3.11.28-1")
    system.pulled = {"erlang-base": "1:26.0-1"}
    with pytest.raises(RefusedError, match=r"RabbitMQ 3\.11\.28 would run on Erlang 26\.0"):
        plan(system, "3.11.28")


def test_what_apt_can_t_do_is_told_in_its_words() -> None:
    system = System(OLD, ERLANG)
    system.removed = "collectd"
    with pytest.raises(RefusedError, match="apt would remove collectd"):
        plan(system, NEW)
    system.broken = "E: Unmet dependencies."
    with pytest.raises(RefusedError, match=r"nothing has changed[\s\S]*Unmet dependencies"):
        plan(system, NEW)


def test_an_index_that_can_t_be_fetched_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([(100, "", "E: Could not get lock /var/lib/apt/lists/lock"), (100, "", "E: no network")])
    waited: list[float] = []
    monkeypatch.setattr(packages.time, "sleep", waited.append)
    apt = packages.Apt(System(OLD, ERLANG))
    apt._run = lambda _: next(answers)
    with pytest.raises(RefusedError, match="apt-get update failed: E: no network"):
        apt.refresh()
    assert len(waited) == 1


def test_another_series_needs_a_node_that_runs_and_all_its_flags() -> None:
    system, host, wanted = (
        System(OLD, ERLANG),
        Host(),
        {"manager": "apt", "version": "3.11.28", "erlang_version": "", "refresh": True},
    )
    system.sources["rabbitmq-server"].insert(0, "3.11.28-1")
    system.flags = [
        {"name": "a", "state": "enabled", "stability": "stable"},
        {"name": "b", "state": "disabled", "stability": "stable"},
        {"name": "c", "state": "disabled", "stability": "experimental"},
    ]
    with pytest.raises(RefusedError, match=r"not enabled: b\. Enable them first"):
        module.look(host, system, wanted)
    system.flags[1]["state"] = "enabled"
    assert module.look(host, system, wanted)["upgrade"]
    host.running = False
    with pytest.raises(RefusedError, match="does not run"):
        module.look(host, system, wanted)
    # Within a series nothing is asked.
    assert module.look(host, system, {**wanted, "version": NEW})["upgrade"]


def test_what_3_13_keeps_in_khepri_is_not_given_to_4() -> None:
    system = System()
    system.flags = [{"name": "khepri_db", "state": "enabled", "stability": "experimental"}]
    with pytest.raises(RefusedError, match="khepri_db is enabled"):
        flags.refuse_disabled(system, "3.13.7", "4.1.0")
    flags.refuse_disabled(system, "4.0.5", "4.1.0")


def test_stable_flags_are_enabled_one_by_one_and_in_a_preview_none() -> None:
    done: list[str] = []

    def run(argv: list[str]) -> tuple[int, str, str]:
        if "enable_feature_flag" in argv:
            done.append(argv[-1])
        return 0, json.dumps([{"name": "a", "state": "disabled", "stability": "stable"}]), ""

    assert (flags.enable(run, True), done) == (["a"], [])
    assert (flags.enable(run, False), done) == (["a"], ["a"])


class Rpm:
    """The RHEL family, with RabbitMQ's repositories or, before the role has added them, without."""

    def __init__(self, installed: dict[str, str], sources: dict[str, str]) -> None:
        self.installed, self.sources = installed, sources

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        name = argv[-1]
        if argv[0] == "rpm":
            return (0, f"{self.installed[name]}\n", "") if name in self.installed else (1, f"package {name} is not", "")
        return 0, self.sources.get(name, ""), ""


def test_dnf_is_asked_likewise_and_trusted_before_the_repositories_are_there() -> None:
    there = Rpm(
        {"rabbitmq-server": "4.0.5-1.el8", "erlang": "27.3-1.el9"}, {"rabbitmq-server": "4.0.5-1.el8\n\n4.1.5-1.el8\n"}
    )
    found = packages.plan(packages.Dnf(there), "4.1.5", "", True)
    assert (found["due"], found["version"], found["pins"], found["upgrade"]) == (
        ["rabbitmq-server-4.1.5-1.el8"], "4.1.5", "", True,
    )  # fmt: skip
    with pytest.raises(RefusedError, match=r"They have 4\.1\.5-1\.el8, 4\.0\.5-1\.el8"):
        packages.plan(packages.Dnf(there), "4.1.9", "", True)
    found = packages.plan(packages.Dnf(Rpm({}, {})), "4.1.5", "27.3", True)
    assert found["due"] == ["erlang-27.3", "rabbitmq-server-4.1.5"]
    assert packages.plan(packages.Dnf(Rpm({}, {})), "", "", True)["due"] == ["rabbitmq-server"]


def test_a_node_is_stopped_only_once_the_others_can_do_without_it() -> None:
    class Node:
        running, needed = True, False

        def __init__(self) -> None:
            self.done: list[str] = []

        def step_aside(self) -> None:
            if self.needed:
                raise RefusedError("the others can't do without it")
            self.done.append("step aside")

        def stop(self) -> None:
            self.done.append("stop")

    node = Node()
    assert (stopping.settle(node, True), node.done) == (True, [])
    assert (stopping.settle(node, False), node.done) == (True, ["step aside", "stop"])
    node.needed = True
    with pytest.raises(RefusedError):
        stopping.settle(node, False)
    assert node.done == ["step aside", "stop"]
    node.running = False
    assert not stopping.settle(node, False)
