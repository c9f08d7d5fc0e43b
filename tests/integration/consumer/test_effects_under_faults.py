"""No order's effect is forgotten, whatever breaks while orders come in; some may come about twice, under the same id.

The effects are the webhook and the announcement. The faults are the effects' own, and those of
test_faults.py that differ in what the service and the broker still know afterwards.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import wraps

import pytest

from dispatch_app.effects.webhook import identifier
from dispatch_app.topology import EVENT
from tests.integration.consumer import test_faults as faults
from tests.integration.consumer.harness import (
    EVENTS,
    SIGKILLED,
    Broker,
    Endpoint,
    Proxy,
    Service,
    heard,
    listen,
    until,
)
from tests.integration.consumer.test_faults import Stage
from tests.integration.consumer.variants import COUNTDOWN

pytestmark = pytest.mark.long

Fault = Callable[[Stage, Endpoint], None]


def killed_before_it_strikes_off(stage: Stage, _: Endpoint) -> None:
    """Let the service crash where announcements are confirmed, and start it again."""
    assert stage.service.stop() == 0
    for _time in range(5):
        stage.service.environment[COUNTDOWN] = str(stage.random.randrange(3))
        stage.service.start("tests.integration.consumer.variants", "killed_before_it_strikes_off")
        assert stage.service.process.wait(60) == SIGKILLED
    stage.service.start()


def nobody_listens_for_a_while(stage: Stage, _: Endpoint) -> None:
    """Take the listener's binding away under the load, and bring it back."""
    with closing(stage.broker.connect()) as connection:
        connection.channel().queue_unbind("heard", EVENTS, EVENT)
    until(lambda: 'reason="unroutable"} 1.0' in stage.service.get("/metrics")[1], what="unroutable")
    stage.await_progress()
    listen(stage.broker)


def endpoint_away(stage: Stage, endpoint: Endpoint) -> None:
    endpoint.go_away()
    stage.service.await_trouble("is away")
    endpoint.come_back()


def endpoint_slow(stage: Stage, endpoint: Endpoint) -> None:
    endpoint.seconds = 0.5
    stage.await_progress(5)
    endpoint.seconds = 0.0


def of_the_consumer(fault: Callable[[Stage], None]) -> Fault:
    @wraps(fault)
    def strike(stage: Stage, _: Endpoint) -> None:
        fault(stage)

    return strike


FAULTS = [
    killed_before_it_strikes_off, nobody_listens_for_a_while, endpoint_away, endpoint_slow,
    *map(of_the_consumer, (
        faults.killed_between_effect_and_acknowledge, faults.killed_at_random_moments, faults.broker_restarted,
        faults.ledger_locked,
    )),
]  # fmt: skip


@pytest.fixture
def endpoint(service: Service) -> Iterator[Endpoint]:
    made = Endpoint()
    service.environment.update(
        {
            "DISPATCH_EVENT_EXCHANGE": EVENTS,
            "DISPATCH_WEBHOOK_URL": f"http://127.0.0.1:{made.port}/",
            "DISPATCH_WEBHOOK_SECRET": f"whsec_{base64.b64encode(bytes(32)).decode()}",
        }
    )
    yield made
    made.go_away()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_no_effect_of_a_dispatched_order_is_forgotten(
    fault: Fault, broker: Broker, proxy: Proxy, service: Service, endpoint: Endpoint, remarks: list[str]
) -> None:
    listen(broker)
    announced: Counter[str] = Counter()

    def take() -> None:
        announced.update(str(props["message_id"]) for props, _ in heard(broker))

    def settled() -> None:
        others = ("orders.dead", "heard")
        until(lambda: not any(n for name, n in broker.messages().items() if name not in others), 200, "queues drained")
        pending = "dispatch_events_pending"
        until(lambda: service.metric("dispatch_ready") and not service.metric(pending), 120, "announced")
        take()

    outcome = faults.run(lambda stage: fault(stage, endpoint), 1, broker, proxy, service, [], settled)
    take()
    ids, cells = {identifier(order_id) for order_id in outcome.dispatched}, []
    for name, told in (("posted", endpoint.told), ("announced", announced)):
        twice = sum(count > 1 for count in told.values())
        cells.append(f"{name} {len(told):6}, twice {twice:5}, forgotten {len(ids - set(map(identifier, told)))}")
    name = fault.__name__.replace("_", " ")
    remarks.append(f"{name:40}{len(outcome.dispatched):6} orders; {'; '.join(cells)}")
    assert not outcome.lost
    assert ids <= set(endpoint.told)
    assert outcome.dispatched == set(announced)
    # Otherwise that fault has not struck.
    assert max(announced.values()) > 1 or fault is not killed_before_it_strikes_off
