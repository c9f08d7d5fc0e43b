"""Values of Dispatch's variables that can't be right are refused by name, all at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dispatch_values
import pytest

from dispatch_app import settings

GOOD: dict[str, Any] = {
    "amqp_host": "rabbit",
    "amqp_port": 5672,
    "amqp_user": "roboshop",
    "amqp_password": "not-to-be-seen",
    "amqp_vhost": "/",
    "amqp_exchange": "robot-shop",
    "amqp_queue": "orders",
    "amqp_routing_key": "orders",
    "webhook_secret": "",
    "ledger": "",
    "ledger_password": None,
    "ledger_ca": "",
    "otlp_endpoint": "",
    "otlp_headers": "",
    "otlp_ratio": 1,
    "environment": {},
    "hook": "",
    "metrics": "",
    "drain_seconds": 300,
}
# Settings that have variables of the role's own, which dispatch_environment can't set.
OF_THEIR_OWN = (
    "dispatch_ledger", "dispatch_ledger_password", "dispatch_ledger_ca", "dispatch_webhook_secret",
    "dispatch_otlp_endpoint", "dispatch_otlp_ratio", "dispatch_otlp_headers", "dispatch_metrics",
)  # fmt: skip
COLLECTOR = {"otlp_endpoint": "https://collector:4318", "otlp_headers": "api-key=not-to-be-seen"}
LEDGER = {"ledger": "postgresql://dispatch@db-1,db-2:5433/dispatch", "ledger_password": "not-to-be-seen"}


def faults(**given: object) -> list[str]:
    found: list[str] = dispatch_values.faults({**GOOD, **given}, "/inventory")
    return found


def test_good_values_are_accepted() -> None:
    assert faults() == []
    assert faults(hook="shop.orders:dispatched") == []
    assert faults(**LEDGER) == []
    assert faults(**LEDGER, ledger_ca="-----BEGIN CERTIFICATE-----") == []
    assert faults(ledger="postgresql://roboshop@%2Frun%2Fpostgresql/dispatch") == []
    assert faults(**COLLECTOR) == []
    assert faults(otlp_endpoint="http://collector:4318", otlp_ratio=0.001, otlp_headers=None) == []
    assert faults(metrics="10.0.2.11") == faults(metrics="%eth0:9700") == []
    assert faults(metrics="unix:/run/dispatch/http.sock") == []
    assert faults(amqp_port="5671", drain_seconds="1", environment={"DISPATCH_RETENTION_DAYS": 90}) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, []),
        ({"amqp_port": "5672"}, []),
        ({"amqp_tls": True, "amqp_port": 5671}, ["dispatch_amqp_port is 5671, but", "dispatch_amqp_tls is True, but"]),
        ({"amqp_vhost": "shop"}, ["dispatch_amqp_vhost is shop, but the artifact is the original program"]),
        ({"amqp_exchange": "roboshop"}, ["dispatch_amqp_exchange is roboshop, but"]),
        ({"amqp_queue": "paid"}, ["dispatch_amqp_queue is paid, but"]),
        ({"amqp_routing_key": "paid"}, ["dispatch_amqp_routing_key is paid, but"]),
        ({"amqp_host": "a, b"}, ["dispatch_amqp_host is a, b, but"]),
        (COLLECTOR, ["dispatch_otlp_endpoint is https://collector:4318, but"]),
        ({"amqp_password": "not-to-be-seen\n"}, ["dispatch_amqp_password has a line break, but"]),
        ({"amqp_password": None}, []),
        (
            LEDGER,
            [f"dispatch_ledger is {LEDGER['ledger']}, but the artifact is the original program or one like it, which"],
        ),
    ],
)
def test_what_the_original_program_has_built_in_can_t_be_set(
    tmp_path: Path, given: dict[str, Any], said: list[str]
) -> None:
    own_zip = tmp_path / "dispatch.zip"
    own_zip.touch()
    found = dispatch_values.original_faults({**GOOD, "amqp_tls": False, **given}, str(own_zip))
    assert [fault[: len(words)] for fault, words in zip(found, said, strict=True)] == said
    assert "not-to-be-seen" not in "".join(found)


def test_the_original_program_s_settings_are_checked_by_our_artifact(tmp_path: Path) -> None:
    (fault,) = dispatch_values.original_faults({**GOOD, "amqp_tls": False}, str(tmp_path / "dispatch.zip"))
    assert fault.startswith("dist/dispatch.zip does not exist, but")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"amqp_host": None}, "dispatch_amqp_host is not set. Set it in the inventory"),
        ({"amqp_host": ""}, 'dispatch_amqp_host is "". Set it in the inventory'),
        ({"amqp_host": "<host>"}, 'dispatch_amqp_host is "<host>". Set it in the inventory'),
        ({"amqp_host": "rabbit:5672"}, 'dispatch_amqp_host is "rabbit:5672". Set it to the address or name alone'),
        ({"amqp_port": 0}, "dispatch_amqp_port is 0. Set it to a port from 1 to 65535"),
        ({"amqp_port": 65536}, "dispatch_amqp_port is 65536. Set it to a port from 1 to 65535"),
        ({"amqp_port": "amqp"}, "dispatch_amqp_port is amqp. Set it to a port from 1 to 65535"),
        ({"amqp_user": ""}, "dispatch_amqp_user is empty. Set it to the RabbitMQ user"),
        ({"amqp_password": None}, "dispatch_amqp_password is not set. Put the password"),
        ({"amqp_password": ""}, "dispatch_amqp_password is not set. Put the password"),
        ({"amqp_password": 12345678}, "dispatch_amqp_password is a number to YAML"),
        ({"amqp_password": 0}, "dispatch_amqp_password is a number to YAML"),
        ({"amqp_vhost": ""}, "dispatch_amqp_vhost is empty. Set it, or leave it out for its default."),
        ({"amqp_queue": ""}, "dispatch_amqp_queue is empty. Set it, or leave it out for its default."),
        ({"environment": "a=b"}, "dispatch_environment is not a dictionary"),
        (
            {"environment": {"DISPATCH_WEBHOOK_SECRET": "x"}},
            "dispatch_environment has the setting DISPATCH_WEBHOOK_SECRET. Take a name",
        ),
        ({"webhook_secret": "x"}, "dispatch_webhook_secret is set but DISPATCH_WEBHOOK_URL is not; set both"),
        (
            {"environment": {"DISPATCH_WEBHOOK_URL": "http://a/"}},
            "dispatch_webhook_secret is not set but DISPATCH_WEBHOOK_URL is; set it",
        ),
        ({**LEDGER, "ledger": "postgresql://dispatch@db-1"}, "dispatch_ledger names no database; put its name at"),
        ({**LEDGER, "ledger": "postgresql://db-1/dispatch"}, "dispatch_ledger names no user; set a URL such as"),
        ({**LEDGER, "ledger": "db-1"}, "dispatch_ledger is no URL of a PostgreSQL database; set a URL such as"),
        ({**LEDGER, "ledger": "postgresql://d@db-1:99999/d"}, "dispatch_ledger has 'db-1:99999', which is no host"),
        ({**LEDGER, "ledger": "postgresql://d@db 1/d"}, "dispatch_ledger has characters that no URL may have; set"),
        (
            {**LEDGER, "ledger": "postgresql://d:not-to-be-seen@db-1/d"},
            "dispatch_ledger holds a password; leave it out, and give it as dispatch_ledger_password or a credential.",
        ),
        ({**LEDGER, "ledger": "postgresql://d@db-1/d?sslmode=allow"}, "dispatch_ledger has sslmode=allow; set one of"),
        (
            {**LEDGER, "ledger": "postgresql://d@localhost/d?sslmode=disable", "ledger_ca": "x"},
            "dispatch_ledger_ca is set, and dispatch_ledger has sslmode=disable; remove one of them.",
        ),
        ({**LEDGER, "ledger_password": None}, "dispatch_ledger_password is not set. Put the password of"),
        ({**LEDGER, "ledger_password": ""}, "dispatch_ledger_password is not set. Put the password of"),
        ({**LEDGER, "ledger_password": 12345678}, "dispatch_ledger_password is a number to YAML"),
        (
            {"ledger_password": "not-to-be-seen"},
            "dispatch_ledger_password is set, and dispatch_ledger is not. Set both",
        ),
        ({"ledger_ca": "x"}, "dispatch_ledger_ca is set, and dispatch_ledger is not. Set both, or neither."),
        (
            {"environment": {"DISPATCH_LEDGER": "postgresql://d@db-1/d"}},
            "dispatch_environment has the setting DISPATCH_LEDGER. Take a name that dispatch_app/README.md gives; for",
        ),
        ({**COLLECTOR, "otlp_endpoint": "collector:4317"}, "dispatch_otlp_endpoint is no http or https URL; set the"),
        ({**COLLECTOR, "otlp_endpoint": "http://a/v1/traces"}, "dispatch_otlp_endpoint ends in /v1/traces, which is"),
        ({**COLLECTOR, "otlp_ratio": 2}, "dispatch_otlp_ratio is '2'; set a number from 0 to 1, such as 0.01 for"),
        ({**COLLECTOR, "otlp_headers": "not-to-be-seen"}, "dispatch_otlp_headers is no list of headers; set name="),
        ({**COLLECTOR, "otlp_headers": 12345678}, "dispatch_otlp_headers is a number to YAML"),
        ({"otlp_headers": "a=not-to-be-seen"}, "dispatch_otlp_headers is set, and dispatch_otlp_endpoint is not. Set"),
        (
            {"environment": {"DISPATCH_OTLP_ENDPOINT": "http://a"}},
            "dispatch_environment has the setting DISPATCH_OTLP_ENDPOINT. Take a name that dispatch_app/README.md",
        ),
        ({"environment": {"Dispatch": 1}}, "dispatch_environment has the setting Dispatch. Take a name"),
        ({"environment": {"AMQP_PASS": "x"}}, "dispatch_environment has the setting AMQP_PASS. Take a name"),
        ({"environment": {"STATE_DIRECTORY": "/x"}}, "dispatch_environment has the setting STATE_DIRECTORY. Take"),
        ({"environment": {"DISPATCH_RETENTION": 1}}, "dispatch_environment has the setting DISPATCH_RETENTION. Take a"),
        (
            {"environment": {"DISPATCH_RETRY_DELAY": 1}},
            "dispatch_environment has the setting DISPATCH_RETRY_DELAY. Take a name that dispatch_app/README.md gives; "
            "for AMQP_* there are the variables dispatch_amqp_*, for DISPATCH_LEDGER* dispatch_ledger*, for "
            "DISPATCH_OTLP_* dispatch_otlp_*, for the webhook's secret dispatch_webhook_secret, for DISPATCH_METRICS "
            "dispatch_metrics, and STATE_DIRECTORY is systemd's. The closest such name is DISPATCH_RETRY_DELAYS.",
        ),
        (
            {"environment": {"DISPATCH_RETRY_DELAYS": "0"}},
            "dispatch_environment.DISPATCH_RETRY_DELAYS is '0'; set one to",
        ),
        ({"hook": "shop"}, "dispatch_hook is 'shop'; set module:function"),
        (
            {"metrics": "0.0.0.0:9672"},
            "dispatch_metrics is '0.0.0.0:9672', which is every address of this host; set an",
        ),
        (
            {"metrics": "unix:/tmp/x"},
            "dispatch_metrics is 'unix:/tmp/x', where the service can't write; set a path in /run",
        ),
        ({"metrics": "http://x"}, "dispatch_metrics is 'http://x'; set an address of this host"),
        (
            {"hook": "shop:hook", "environment": {"DISPATCH_HOOK": "a:b"}},
            "dispatch_hook is set, and dispatch_environment",
        ),
        ({"environment": {"DISPATCH_HOOK_SECONDS": "0"}}, "dispatch_environment.DISPATCH_HOOK_SECONDS is '0'; set a"),
        (
            {"environment": {"DISPATCH_RATE_PER_SECOND": "x"}},
            "dispatch_environment.DISPATCH_RATE_PER_SECOND is 'x'; set",
        ),
        ({"environment": {"DISPATCH_HTTP": "9672"}}, "dispatch_environment.DISPATCH_HTTP is '9672'; set address:port"),
        (
            {"environment": {"DISPATCH_PREFETCH": "many"}},
            "dispatch_environment.DISPATCH_PREFETCH is 'many'; set a whole number from 1 to 65535.",
        ),
        ({"environment": {"DISPATCH_RETENTION_DAYS": -1}}, "dispatch_environment.DISPATCH_RETENTION_DAYS is '-1'; set"),
        (
            {"environment": {"DISPATCH_HOOK": "x.py"}},
            "dispatch_environment.DISPATCH_HOOK is 'x.py'; set module:function",
        ),
        ({"drain_seconds": 0}, "dispatch_drain_seconds is 0. Set it to the seconds"),
        ({"drain_seconds": "long"}, "dispatch_drain_seconds is long. Set it to the seconds"),
    ],
)
def test_bad_values_are_refused_in_the_role_s_words(given: dict[str, object], said: str) -> None:
    (fault,) = faults(**given)
    assert fault.startswith(said)
    assert "not-to-be-seen" not in fault


def test_every_setting_that_the_consumer_documents_is_known() -> None:
    text = (Path(__file__).resolve().parents[3] / "dispatch_app" / "README.md").read_text()
    names = re.findall(r"^\| `(DISPATCH_[A-Z_]+)`", text, re.MULTILINE)
    assert len(names) > 4
    refused = [name for name in names for fault in faults(environment={name: ""}) if "Take a name" in fault]
    assert all(f"dispatch_{name.removeprefix('DISPATCH_').lower()}" in OF_THEIR_OWN for name in refused), refused


def test_a_password_s_remedy_is_to_be_copied() -> None:
    assert faults(amqp_password=None)[0].endswith("ansible-vault create /inventory/group_vars/all/vault.yml")
    assert faults(amqp_password=0)[0].endswith('Put it in quotes: dispatch_amqp_password: "…"')


def test_a_setting_may_begin_as_systemd_s_does() -> None:
    assert faults(environment={"STATE_DIRECTORY_OF_MINE": "/x"}) == []


def test_all_faults_are_told_at_once() -> None:
    found = faults(
        amqp_host=None,
        amqp_port=0,
        amqp_user="",
        amqp_password="",
        amqp_vhost="",
        amqp_exchange="",
        amqp_queue="",
        amqp_routing_key="",
        ledger_ca="x",
        environment={"a": 1, "b": 2},
        drain_seconds=0,
    )
    assert [fault.partition(", and ")[0].partition(" is ")[0].partition(". ")[0] for fault in found] == [
        "dispatch_amqp_host",
        "dispatch_amqp_port",
        "dispatch_amqp_user",
        "dispatch_amqp_password",
        "dispatch_amqp_vhost",
        "dispatch_amqp_exchange",
        "dispatch_amqp_queue",
        "dispatch_amqp_routing_key",
        "dispatch_ledger_ca",
        "dispatch_environment has the setting a",
        "dispatch_environment has the setting b",
        "dispatch_drain_seconds",
    ]


@pytest.mark.parametrize(
    "host",
    [
        "rabbit",
        "rabbit-1.example.org",
        "under_score",
        "10.0.1.20",
        "::1",
        "2001:db8::5",
        "fe80::1%eth0",
        "a,b",
        "a,::1,10.0.0.1",
        "a, b",
        " a",
        "",
        ",",
        "a,",
        "a,,b",
        "a:5672",
        "a:",
        "a,b:5672",
        "<rabbit>",
        "me@rabbit",
        "amqp://rabbit",
        "rabbit/vhost",
        "two words",
        "räbbit",
        "rabbit;",
        "[::1]",
    ],
)
def test_a_host_is_right_to_the_role_where_it_is_to_the_consumer(host: str) -> None:
    try:
        settings.load({"AMQP_HOST": host, "AMQP_PASS": "x"})
        accepted = True
    except settings.SettingsError:
        accepted = False
    assert (faults(amqp_host=host) == []) is accepted


@pytest.mark.parametrize(
    ("given", "url", "stop"),
    [
        ({}, "http://127.0.0.1:9672/readyz", 30),
        ({"DISPATCH_HTTP": "0.0.0.0:80", "DISPATCH_STOP_SECONDS": 5}, "http://127.0.0.1:80/readyz", 15),
        ({"DISPATCH_HTTP": "10.0.0.1:80", "DISPATCH_STOP_SECONDS": "60"}, "http://10.0.0.1:80/readyz", 70),
        ({"DISPATCH_HTTP": "", "DISPATCH_STOP_SECONDS": "soon"}, "http://127.0.0.1:9672/readyz", 30),
        ("no dictionary", "http://127.0.0.1:9672/readyz", 30),
    ],
)
def test_the_consumer_s_further_settings_tell_how_it_is_asked_and_stopped(given: object, url: str, stop: int) -> None:
    assert dispatch_values.ready_url(given) == url
    assert dispatch_values.stop_seconds(given) == stop


def test_what_the_consumer_does_by_default_is_known() -> None:
    defaults = settings.load({"AMQP_HOST": "rabbit", "AMQP_PASS": "x"})
    assert dispatch_values.ready_url({}) == "http://{}:{}/readyz".format(*defaults.http)
    assert dispatch_values.stop_seconds({}) == defaults.stop_seconds + 10


def test_the_unit_gets_what_a_hook_and_a_socket_need_and_the_inventory_has_the_last_word() -> None:
    assert dispatch_values.directives({}, "", "10.0.2.11") == {}
    needed = {"OOMPolicy": "continue", "RuntimeDirectory": "dispatch"}
    assert dispatch_values.directives({}, "shop:ship", "unix:/run/dispatch/http.sock") == needed
    assert dispatch_values.directives({"OOMPolicy": "stop"}, "shop:ship", "") == {"OOMPolicy": "stop"}
    assert dispatch_values.directives("no dictionary", "shop:ship", "") == "no dictionary"
