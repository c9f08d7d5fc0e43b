"""An order the process dies over is put aside in the end, and no other order ever is."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatch_app.orders import Order, parse
from dispatch_app.suspects import DEATHS, REASON, DeadlyOrderError, Suspects

from .test_consumer import Bench

KILLED = -signal.SIGKILL


def deadly(body: bytes, longest: int) -> Order:
    """Stand for whatever crashes the interpreter over one order."""
    if b"bomb" in body:
        os.kill(os.getpid(), signal.SIGKILL)
    return parse(body, longest)


def live(path: Path, work: Callable[[Bench], None]) -> int:
    """Let a process of its own work; return its exit code, which is KILLED if it was."""
    child = os.fork()
    if not child:
        code = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("dispatch_app.consumer.parse", deadly)
                work(Bench(path))
            code = 0
        finally:  # whatever happens, this process must not go on with the parent's tests
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def deliver(*orders: tuple[str, int]) -> Callable[[Bench], None]:
    """Return the work of a process that is given orders, each redelivered (1) or not (0)."""

    def work(bench: Bench) -> None:
        for tag, (order_id, redelivered) in enumerate(orders, 1):
            bench.deliver(tag, order_id, redelivered)
        bench.broker.fire()

    return work


def test_the_order_all_deaths_were_over_is_put_aside_and_the_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    assert live(path, deliver(("a", 0), ("bomb", 0), ("b", 0))) == KILLED
    again = deliver(("a", 1), ("bomb", 1), ("b", 1))
    for _ in range(DEATHS):
        assert live(path, again) == KILLED
    bench = Bench(path)
    again(bench)
    assert bench.recorded() == ["a", "b"]
    assert bench.aside.published == ["orders.dead"]
    bench.confirm(1)
    assert bench.broker.acks[-1] == 3
    assert +bench.state.dead == {REASON: 1}
    bench.ledger.close()
    assert live(path, deliver(("bomb", 1))) == KILLED  # replayed, it begins anew


def test_orders_delivered_again_without_a_death_are_never_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    for _ in range(DEATHS + 2):
        assert live(path, deliver(("a", 1), ("b", 1))) == 0
    bench = Bench(path)
    for number in range(DEATHS + 2):  # the broker restarts, this process lives on
        bench.deliver(number + 1, "a", redelivered=1)
        bench.broker.fire()
    assert (bench.recorded(), +bench.state.dead, hasattr(bench, "aside")) == (["a", "b"], {}, False)
    assert not (tmp_path / "deaths.json").exists()
    bench.ledger.close()


def test_a_death_between_two_orders_or_over_a_new_one_is_blamed_on_none(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    assert live(path, deliver(("a", 1), ("bomb", 0))) == KILLED

    def die_at_the_commit(bench: Bench) -> None:
        bench.ledger.record = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign,return-value]  # it never returns
        deliver(("a", 1))(bench)

    assert live(path, die_at_the_commit) == KILLED
    Suspects(tmp_path)
    assert not (tmp_path / "deaths.json").exists()


def test_a_damaged_memory_is_an_empty_one(tmp_path: Path) -> None:
    for damage in ("[]", "{", "null", '{"a": []}'):
        (tmp_path / "deaths.json").write_text(damage)
        Suspects(tmp_path).take(b"order")
    (tmp_path / "deaths.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dispatch_app.suspects.DEATHS", 1)
        with pytest.raises(DeadlyOrderError):
            Suspects(tmp_path).take(b"order")
    assert list(json.loads((tmp_path / "deaths.json").read_text()).values()) == [1]


def test_without_a_directory_to_write_orders_go_on(tmp_path: Path) -> None:
    suspects = Suspects(tmp_path / "missing")
    suspects.take(b"order")
    suspects.leave()
