"""The password from where it is kept, by the lines that inventories/ec2 offers: moto is AWS, and Vault a stand-in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cloud import INVENTORY, Cloud, account
from tests.integration.vault import ACCEPTED, vault

# Ansible must not take what a lookup finds for a template.
BRACES = 'Xy{{ 7 * 7 }}{#"9'
OFFERED = re.findall(
    r"^# (dispatch_amqp_password: .*lookup\(.*)$",
    (INVENTORY / "group_vars" / "all" / "main.yml").read_text(),
    re.MULTILINE,
)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with account() as made:
        yield made


@pytest.fixture
def host(cloud: Cloud) -> str:
    """A host of Dispatch in the environment dev, which has a broker."""
    cloud.instance("rabbitmq", "dev")
    return f"dispatch-dev-{cloud.instance('dispatch', 'dev')[0]}"


def kept_in(store: str, directory: Path) -> Path:
    """A file of variables with the line of the inventory that looks in this store."""
    (line,) = [line for line in OFFERED if store in line]
    file = directory / "password.yml"
    file.write_text(f"{line}\n")
    return file


def test_three_stores_are_offered() -> None:
    stores = ("ssm_parameter", "secretsmanager_secret", "vault_kv2_get")
    assert [store for line, store in zip(OFFERED, stores, strict=True) if store not in line] == []


def test_the_password_is_a_parameter_of_systems_manager(cloud: Cloud, host: str, tmp_path: Path) -> None:
    ssm = cloud.client("ssm")
    ssm.put_parameter(Name="/roboshop/dev/amqp_password", Value=BRACES, Type="SecureString")
    ssm.put_parameter(Name="/roboshop/prod/amqp_password", Value="another", Type="SecureString")
    line = kept_in("ssm_parameter", tmp_path)
    assert cloud.resolved(host, "dispatch_amqp_password", "-e", f"@{line}") == BRACES
    # The broker of this project gets the same.
    assert cloud.resolved(host, "rabbitmq_password", "-e", f"@{line}") == BRACES


def test_the_password_is_a_secret_of_secrets_manager(cloud: Cloud, host: str, tmp_path: Path) -> None:
    secret = json.dumps({"amqp_password": BRACES, "ledger_password": "another"})
    cloud.client("secretsmanager").create_secret(Name="roboshop/dev", SecretString=secret)
    line = kept_in("secretsmanager_secret", tmp_path)
    assert cloud.resolved(host, "dispatch_amqp_password", "-e", f"@{line}") == BRACES


def test_the_password_is_a_secret_of_vault(cloud: Cloud, host: str, tmp_path: Path) -> None:
    line = kept_in("vault_kv2_get", tmp_path)
    with vault({"roboshop/dev": {"amqp_password": BRACES}}) as url:
        cloud.environment |= {"VAULT_ADDR": url, "VAULT_TOKEN": ACCEPTED}
        assert cloud.resolved(host, "dispatch_amqp_password", "-e", f"@{line}") == BRACES


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("ssm_parameter", "/roboshop/dev/amqp_password"),
        ("secretsmanager_secret", "roboshop/dev"),
        ("vault_kv2_get", "roboshop/dev"),
    ],
)
def test_a_password_that_is_not_there_stops_the_play_before_a_host_is_asked(
    cloud: Cloud, host: str, tmp_path: Path, store: str, said: str
) -> None:
    with vault({}) as url:
        cloud.environment |= {"VAULT_ADDR": url, "VAULT_TOKEN": ACCEPTED}
        line = kept_in(store, tmp_path)
        done = cloud.ansible("playbook", "playbooks/check.yml", "--limit", host, "-e", f"@{line}")
    assert done.returncode != 0
    told = " ".join((done.stdout + done.stderr).split())
    assert "dispatch_amqp_password" in told
    assert said in told
    assert "UNREACHABLE" not in told
