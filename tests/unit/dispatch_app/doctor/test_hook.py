"""A hook that can't be called, or that fails over orders, is told with how it does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from dispatch_app.doctor.checks import flow, hook
from dispatch_app.doctor.table import CONTROLLER, Finding
from dispatch_app.health import State, exposition
from dispatch_app.settings import load

PLAIN = {"AMQP_HOST": "a", "AMQP_PASS": "b"}


def case(given: dict[str, str], **metrics: float) -> Any:
    counters = {name: value for name, value in metrics.items() if name.startswith("dispatch_")}
    for outcome in ("done", "failed", "timeout", "died"):
        name = outcome if outcome == "done" else f"hook-{outcome}"
        counters[f'dispatch_effects_total{{effect="hook",outcome="{name}"}}'] = metrics.get(outcome, 0.0)
    return SimpleNamespace(
        host=SimpleNamespace(environment=given, foreign=None),
        broker=SimpleNamespace(settings=load({**PLAIN, **given})),
        process=SimpleNamespace(counters=counters, ask=lambda _: (503, "it can't be imported; orders are held\n")),
        depths={name: SimpleNamespace(ready=2) for name in ("orders.retry.1s",)}
        | dict.fromkeys((f"orders.retry.{seconds}s" for seconds in (5, 30, 120, 300)), SimpleNamespace(ready=0)),
    )


def test_a_hook_that_can_t_be_called_is_told_with_what_the_service_says_of_it() -> None:
    shop = {"DISPATCH_HOOK": "shop:hook"}
    finding = hook.hook_broken(case(shop, dispatch_effect_held_seconds=3.0))
    assert finding
    assert finding.evidence == "it can't be imported; orders are held"
    assert finding.where == CONTROLLER
    assert hook.hook_broken(case(shop, dispatch_effect_held_seconds=0.0)) is None
    assert hook.hook_broken(case({}, dispatch_effect_held_seconds=3.0)) is None


@pytest.mark.parametrize(
    ("counts", "evidence", "cause"),
    [
        ({"failed": 2, "done": 9}, "; this process counts 2 hook-failed", "The hook raises, so"),
        (
            {"failed": 1, "timeout": 5},
            "; this process counts 1 hook-failed, 5 hook-timeout",
            "The hook does not",
        ),
        ({"died": 4}, "; this process counts 4 hook-died", "The hook's process dies, so"),
        ({}, "", "The hook fails, so"),
    ],
)
def test_orders_that_wait_for_a_hook_say_how_it_fails(counts: dict[str, float], evidence: str, cause: str) -> None:
    finding: Finding | None = flow.retry_backlog(case({"DISPATCH_HOOK": "shop:hook"}, **counts))
    assert finding
    assert finding.evidence == f"2 in orders.retry.1s; DISPATCH_HOOK is shop:hook{evidence}"
    assert finding.cause.startswith(cause)


def test_a_service_that_holds_no_order_says_so_to_the_metrics_and_the_doctor() -> None:
    state = State()
    state.effects["hook", "done"] += 1
    assert held_seconds(state) == 0
    assert (
        hook.hook_broken(case({"DISPATCH_HOOK": "shop:hook"}, dispatch_effect_held_seconds=held_seconds(state))) is None
    )
    state.held = "it can't be imported; orders are held", 0.0
    assert hook.hook_broken(case({"DISPATCH_HOOK": "shop:hook"}, dispatch_effect_held_seconds=held_seconds(state)))


def held_seconds(state: State) -> float:
    """What the service's metrics say of orders that are held."""
    (value,) = (
        sample.value
        for family in families(exposition(state, 0).decode())
        for sample in family.samples
        if sample.name == "dispatch_effect_held_seconds"
    )
    return value


@pytest.mark.parametrize("held", [0.0, 82.7])
def test_orders_that_are_held_for_their_effect_make_no_progress_and_that_is_meant(held: float) -> None:
    stalled: Any = case({"DISPATCH_HOOK": "shop:hook"}, dispatch_effect_held_seconds=held)
    stalled.broker.order_queue = {"messages_unacknowledged": 12, "consumers": 1}
    stalled.process.progress = lambda _seconds: False
    assert (flow.no_progress(stalled) is None) == bool(held)
