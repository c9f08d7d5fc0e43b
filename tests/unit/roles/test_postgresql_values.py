"""All faults of the database's variables are said at once, and its settings are written as PostgreSQL reads them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Template

values = importlib.import_module("roles.postgresql.filter_plugins.postgresql_values")

DEFAULTS = Path(__file__).resolve().parents[3] / "roles" / "postgresql" / "defaults" / "main.yml"

GOOD: dict[str, Any] = {
    "postgresql_database": "dispatch",
    "postgresql_user": "dispatch",
    "postgresql_owner": "dispatch_owner",
    "postgresql_replication_user": "replicator",
    "postgresql_password": "s3cret phrase: ä{#'\"",
    "postgresql_replication_password": None,
    "postgresql_clients": ["10.0.2.11", "10.0.3.0/24", "2001:db8::5", "dispatch-1.shop.internal"],
    "postgresql_address": "10.0.4.11",
    "postgresql_hosts": ["db-1"],
    "postgresql_primary": "db-1",
    "postgresql_synchronous": False,
    "postgresql_rebuild": "",
    "postgresql_settings": {"max_connections": 200, "auto_explain.log_min_duration": "5s", "fsync": True},
    "postgresql_tls_names": ["db-1", "10.0.4.11", "*.shop.internal"],
    "postgresql_artifact": __file__,
}
PAIR: dict[str, Any] = {"postgresql_hosts": ["db-1", "db-2"], "postgresql_replication_password": "hunter22"}


def found(host: str = "db-1", **changed: Any) -> list[str]:
    return list(values.postgresql_faults({**GOOD, **changed}, host, "/shop"))


def test_good_values_have_no_fault() -> None:
    assert found() == []
    assert found(**PAIR, postgresql_synchronous=True, postgresql_rebuild="db-2") == []
    assert found("db-2", **PAIR) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"postgresql_database": "my-db"}, "postgresql_database is 'my-db'. Set it to small letters"),
        ({"postgresql_user": 'x" peer'}, "postgresql_user is 'x\" peer'. Set it to small letters"),
        ({"postgresql_owner": "pg_owner"}, "postgresql_owner is 'pg_owner'. Set it to small letters"),
        ({"postgresql_replication_user": 7}, "postgresql_replication_user is 7. Set it to small letters"),
        ({"postgresql_owner": "dispatch"}, "are not all different"),
        ({"postgresql_user": "postgres"}, "are not all different"),
        ({"postgresql_password": None}, "postgresql_password is not set.*create /shop/group_vars/all/vault.yml"),
        ({"postgresql_password": ""}, "postgresql_password is not set"),
        ({"postgresql_password": 12345678}, "postgresql_password is a number to YAML"),
        ({"postgresql_password": "hunter22\n"}, "postgresql_password holds a control character"),
        ({"postgresql_hosts": "db-1, db-2"}, "postgresql_hosts is 'db-1, db-2', which is no list with db-1"),
        ({"postgresql_hosts": ["db-2"]}, "postgresql_hosts is .'db-2'., which is no list with db-1"),
        ({"postgresql_primary": "db-3"}, "postgresql_primary is db-3, which is none of these servers: db-1"),
        ({**PAIR, "postgresql_replication_password": None}, "postgresql_replication_password is not set. Put the"),
        ({"postgresql_synchronous": True}, "postgresql_synchronous is true, and no replica is there"),
        ({"postgresql_rebuild": "db-1"}, "postgresql_rebuild is db-1, which is no replica of db-1"),
        ({"postgresql_rebuild": "db-3"}, "postgresql_rebuild is db-3, which is no replica of db-1"),
        ({"postgresql_clients": "10.0.2.11"}, "postgresql_clients is '10.0.2.11', which is no list"),
        ({"postgresql_clients": ["all all trust\n"]}, "postgresql_clients has .* neither a host's name nor an address"),
        ({"postgresql_clients": ["10.0.2.0/33"]}, "postgresql_clients has '10.0.2.0/33', which is neither"),
        ({"postgresql_address": "db 1"}, "postgresql_address has 'db 1', which is neither"),
        ({"postgresql_settings": "a=b"}, "postgresql_settings is not a dictionary"),
        ({"postgresql_settings": {"a b": 1}}, "postgresql_settings has 'a b', and no setting is named like that"),
        ({"postgresql_settings": {"ssl": False}}, "postgresql_settings has ssl, which this role sees to itself"),
        ({"postgresql_settings": {"hba_file": "/x"}}, "postgresql_settings has hba_file, which this role"),
        ({"postgresql_settings": {"work_mem": "1\n2"}}, "postgresql_settings.work_mem is no value of one line"),
        ({"postgresql_settings": {"work_mem": [1]}}, "postgresql_settings.work_mem is no value of one line"),
        ({"postgresql_tls_names": "db-1"}, "postgresql_tls_names is 'db-1', which is no list"),
        ({"postgresql_tls_names": ["not a name"]}, "postgresql_tls_names names 'not a name'"),
        ({"host": "../x", "postgresql_hosts": ["../x"], "postgresql_primary": "../x"}, "The host is named '../x'"),
        ({"host": "ca", "postgresql_hosts": ["ca"], "postgresql_primary": "ca"}, "The host is named 'ca'"),
        ({"postgresql_artifact": "/nowhere.zip"}, "postgresql_artifact is /nowhere.zip, and there is no such file"),
    ],
)
def test_a_bad_value_is_named_with_what_to_do(changed: dict[str, Any], said: str) -> None:
    (fault,) = found(**changed)
    assert re.search(said, fault, re.DOTALL), fault
    assert fault.endswith((".", '"…"', "vault.yml", "10.0.2.12]", "[first, second]"))
    assert "hunter22" not in fault


def test_all_faults_are_said_at_once() -> None:
    every = found(postgresql_database="-", postgresql_password=None, postgresql_primary="x", postgresql_settings=1)
    assert [fault.split()[0] for fault in every] == [
        "postgresql_database", "postgresql_password", "postgresql_primary", "postgresql_settings",
    ]  # fmt: skip


def test_settings_are_written_as_the_server_reads_them() -> None:
    given = {"fsync": True, "wal_compression": False, "work_mem": "8MB", "a.b": "it's \\ 1", "random_page_cost": 1.1}
    assert values.postgresql_settings(given).splitlines()[1:] == [
        "fsync = 'on'",
        "wal_compression = 'off'",
        "work_mem = '8MB'",
        "a.b = 'it''s \\\\ 1'",
        "random_page_cost = '1.1'",
    ]


@pytest.mark.parametrize(
    ("host", "reached_at"),
    [
        ({"inventory_hostname": "db-1"}, "db-1"),
        ({"inventory_hostname": "db-1", "ansible_host": "10.0.4.11"}, "10.0.4.11"),
        ({"inventory_hostname": "db-1", "ansible_host": "127.0.0.1", "postgresql_address": "db"}, "db"),
    ],
)
def test_a_host_is_reached_where_the_inventory_says(host: dict[str, str], reached_at: str) -> None:
    assert values.postgresql_reached_at(host) == reached_at


def test_the_primary_stays_the_same_when_an_inventory_lists_the_servers_in_another_order() -> None:
    # Docker's plugin lists the newest container first, and EC2 promises no order.
    default = Template(yaml.safe_load(DEFAULTS.read_text())["postgresql_primary"])
    assert {default.render(postgresql_hosts=hosts) for hosts in (["db-1", "db-2"], ["db-2", "db-1"])} == {"db-1"}
