"""EC2's dynamic inventory against moto's server on loopback, which invents the instances: nothing connects to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cloud import Cloud, account


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with account() as made:
        yield made


def test_instances_are_grouped_by_tag_and_dispatch_finds_its_environments_broker(cloud: Cloud) -> None:
    broker, address = cloud.instance("rabbitmq", "dev")
    dispatch, dispatch_address = cloud.instance("dispatch", "dev")
    _, other_address = cloud.instance("rabbitmq", "prod")
    other_dispatch, _ = cloud.instance("dispatch", "prod")
    stopped, _ = cloud.instance("dispatch", "dev")
    cloud.ec2.stop_instances(InstanceIds=[stopped])

    graph = cloud.ansible("inventory", "--graph")
    assert graph.returncode == 0, graph.stderr
    groups: dict[str, set[str]] = {}
    for line in graph.stdout.splitlines():
        name = line.lstrip("| -")
        if name.startswith("@"):
            group = groups.setdefault(name.strip("@:"), set())
        else:
            group.add(name)
    dev, prod = f"dispatch-dev-{dispatch}", f"dispatch-prod-{other_dispatch}"
    assert groups["dispatch"] == {dev, prod}
    assert groups["env_dev"] == {dev, f"rabbitmq-dev-{broker}"}
    assert cloud.variables(dev)["msg"] == [address, dispatch_address]
    assert cloud.variables(prod)["msg"][0] == other_address

    # A new broker takes the old one's place, and no file of the inventory changes.
    _, new_address = cloud.instance("rabbitmq", "dev")
    cloud.ec2.terminate_instances(InstanceIds=[broker])
    assert cloud.variables(dev)["msg"][0] == new_address


def test_an_environment_s_name_may_be_none_for_a_group(cloud: Cloud) -> None:
    _, address = cloud.instance("rabbitmq", "pre-prod")
    dispatch, _ = cloud.instance("dispatch", "pre-prod")
    assert cloud.variables(f"dispatch-pre-prod-{dispatch}")["msg"][0] == address


def test_an_environment_without_a_broker_says_so(cloud: Cloud) -> None:
    dispatch, _ = cloud.instance("dispatch", "stage")
    cloud.instance("rabbitmq", "prod")
    assert cloud.variables(f"dispatch-stage-{dispatch}")["msg"][0] == (
        "no running instance has the tags Project=roboshop, Role=rabbitmq, Environment=stage"
    )


def test_two_brokers_of_an_environment_are_named_and_not_taken_for_one(cloud: Cloud) -> None:
    dispatch, _ = cloud.instance("dispatch", "dev")
    brokers = [cloud.instance("rabbitmq", "dev")[0] for _ in range(2)]
    cloud.instance("rabbitmq", "prod")
    said = cloud.variables(f"dispatch-dev-{dispatch}")["msg"][0]
    names = ", ".join(sorted(f"rabbitmq-dev-{broker}" for broker in brokers))
    assert said == (
        "2 running brokers that are no cluster have the tags Project=roboshop, Role=rabbitmq, Environment=dev: " + names
    )
    # The role dispatch takes host names and commas, and refuses any other character.
    assert " " in said


def test_the_brokers_of_an_environment_may_be_a_cluster(cloud: Cloud) -> None:
    dispatch, _ = cloud.instance("dispatch", "dev")
    brokers = sorted(cloud.instance("rabbitmq", "dev") for _ in range(3))
    _, other = cloud.instance("rabbitmq", "prod")
    told = cloud.variables(f"dispatch-dev-{dispatch}", "-e", "rabbitmq_cluster=true")["msg"][0]
    assert told == ",".join(address for _, address in brokers)
    assert other not in told


def test_dispatch_finds_the_databases_of_its_environment(cloud: Cloud) -> None:
    cloud.instance("rabbitmq", "dev")
    dispatch, dispatch_address = cloud.instance("dispatch", "dev")
    host = f"dispatch-dev-{dispatch}"
    assert cloud.resolved(host, "dispatch_ledger") == ""
    databases = sorted((f"postgresql-dev-{name}", address) for name, address in
                       (cloud.instance("postgresql", "dev") for _ in range(2)))  # fmt: skip
    cloud.instance("postgresql", "prod")
    cloud.instance("dispatch", "prod")
    addresses = ",".join(address for _, address in databases)
    assert cloud.resolved(host, "dispatch_ledger") == f"postgresql://dispatch@{addresses}/dispatch"
    assert cloud.resolved(databases[0][0], "postgresql_hosts") == [name for name, _ in databases]
    assert cloud.resolved(databases[0][0], "postgresql_clients") == [dispatch_address]


def test_no_instances_is_an_error(cloud: Cloud) -> None:
    for book in ("site", "dispatch"):
        done = cloud.ansible("playbook", f"playbooks/{book}.yml")
        assert done.returncode != 0
        assert "The inventory has no host in the group dispatch" in done.stdout
        assert "instances Project=roboshop and Role=dispatch" in " ".join(done.stdout.split())


def test_no_credentials_is_an_error(cloud: Cloud) -> None:
    del cloud.environment["AWS_ACCESS_KEY_ID"], cloud.environment["AWS_SECRET_ACCESS_KEY"]
    done = cloud.ansible("playbook", "playbooks/dispatch.yml")
    assert done.returncode != 0
    assert "credentials" in done.stderr.lower()
    assert "PLAY" not in done.stdout
