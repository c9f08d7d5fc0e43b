"""No order's effect is forgotten, whatever breaks while orders come in; some may come about twice, under the same id.

The faults are those of test_faults.py, and some of the effects' own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing

import pytest

from dispatch_app.topology import EVENT
from tests.integration.consumer import test_faults as faults
from tests.integration.consumer.harness import EVENTS, SIGKILLED, Broker, Proxy, Service, heard, listen, until
from tests.integration.consumer.test_faults import Stage
from tests.integration.consumer.variants import COUNTDOWN

pytestmark = pytest.mark.long


def killed_before_it_strikes_off(stage: Stage) -> None:
    """Let the service crash where announcements are confirmed, and start it again."""
    assert stage.service.stop() == 0
    for _ in range(5):
        stage.service.environment[COUNTDOWN] = str(stage.random.randrange(3))
        stage.service.start("tests.integration.consumer.variants", "killed_before_it_strikes_off")
        assert stage.service.process.wait(60) == SIGKILLED
    stage.service.start()


def nobody_listens_for_a_while(stage: Stage) -> None:
    """Take the listener's binding away under the load, and bring it back."""
    with closing(stage.broker.connect()) as connection:
        connection.channel().queue_unbind("heard", EVENTS, EVENT)
    until(lambda: 'reason="unroutable"} 1.0' in stage.service.get("/metrics")[1], what="unroutable")
    stage.await_progress(1000)
    listen(stage.broker)


FAULTS = [
    killed_before_it_strikes_off, nobody_listens_for_a_while, faults.killed_between_effect_and_acknowledge,
    faults.killed_within_the_transaction, faults.killed_at_random_moments, faults.stopped_by_sigterm,
    faults.closed_by_the_broker, faults.black_hole, faults.broker_restarted, faults.ledger_locked,
]  # fmt: skip
# After these faults something must have come about twice; otherwise the fault did not strike.
TWICE = {killed_before_it_strikes_off}


@pytest.mark.parametrize("service", [{"DISPATCH_EVENT_EXCHANGE": EVENTS}], indirect=True)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_every_dispatched_order_is_announced(
    fault: Callable[[Stage], None], broker: Broker, proxy: Proxy, service: Service, remarks: list[str]
) -> None:
    listen(broker)
    told: Counter[str] = Counter()

    def take() -> None:
        told.update(str(props["message_id"]) for props, _ in heard(broker))

    def settled() -> None:
        others = ("orders.dead", "heard")
        until(lambda: not any(n for name, n in broker.messages().items() if name not in others), 120, "queues drained")
        until(
            lambda: service.metric("dispatch_ready") and not service.metric("dispatch_events_pending"), 120, "announced"
        )
        take()

    outcome = faults.run(fault, 1, broker, proxy, service, [], settled)
    take()
    twice = [order_id for order_id, count in told.items() if count > 1]
    forgotten = outcome.dispatched - set(told)
    name = fault.__name__.replace("_", " ")
    remarks.append(
        f"{name:42}{len(outcome.dispatched):6} orders, announced {len(told):6}, twice {len(twice):5}, "
        f"forgotten {len(forgotten)}"
    )
    assert not forgotten
    assert set(told) == outcome.dispatched
    assert not outcome.lost
    assert twice or fault not in TWICE
