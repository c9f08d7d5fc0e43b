"""The connection is lost again and again: the service consumes after each loss, and leaks nothing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.integration.consumer.harness import Broker, Proxy, Service, order, until

LOSSES = 30 * int(os.environ.get("DISPATCH_TEST_ROUNDS", "1"))
WARM = 10  # losses after which memory no longer grows
GROWTH = 1024  # KiB of memory by which a process varies without a leak


def resources(service: Service) -> tuple[int, int, int]:
    """Return memory in KiB, file descriptors and threads."""
    process = Path("/proc", str(service.process.pid))
    memory = re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())
    assert memory
    return int(memory[1]), len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


@pytest.mark.long
def test_after_each_loss_it_consumes_and_nothing_grows(
    broker: Broker, proxy: Proxy, service: Service, remarks: list[str]
) -> None:
    service.environment["AMQP_PORT"] = str(proxy.port)
    service.start()
    service.await_ready()
    seen: list[tuple[int, int, int]] = []
    for loss in range(LOSSES):
        if loss % 3 == 0:
            broker.drop_connections()
        elif loss % 3 == 1:
            proxy.cut()
        else:
            broker.ctl("delete_queue", "-p", broker.vhost, "orders")  # Basic.Cancel, and the connection is built anew
        until(lambda loss=loss: service.metric("dispatch_connections_total") == loss + 2, what="a reconnect")  # type: ignore[misc]
        service.await_ready()
        broker.publish(order(f"after-loss-{loss}"))
        service.await_dispatched(f"after-loss-{loss}")
        # The threads that answer this test's requests end a moment after their answer, so the count needs a wait.
        if seen:
            until(lambda: resources(service)[1:] == seen[0][1:], what=f"{seen[0]}, is {resources(service)}")
        seen.append(resources(service))
    remarks.append(f"memory in KiB, descriptors, threads after losses 1, 10, 20, …: {seen[0]}, {seen[WARM - 1 :: 10]}")
    assert seen[-1][0] - seen[WARM - 1][0] <= GROWTH
    assert service.metric("dispatch_connection_losses_total") == LOSSES
    lost = [line for line in service.log() if line["message"].startswith("connection lost")]
    assert [line["failures"] for line in lost] == [1] * LOSSES  # a success resets the count
    assert not [line for line in lost if broker.password in json.dumps(line)]
