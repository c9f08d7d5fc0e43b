"""A ledger that takes its time: the event loop never waits for it, and nothing is lost or acknowledged early."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatch_app import consumer as consumer_module
from dispatch_app.health import State
from dispatch_app.ledgers import watch as watch_module
from dispatch_app.ledgers.desk import AtOnce, InThread
from dispatch_app.ledgers.port import AwayError, Ledger
from dispatch_app.ledgers.sqlite import SqliteLedger
from dispatch_app.ledgers.watch import Watch

from .test_consumer import Bench
from .test_effects import Shop

AWAY = AwayError("the server is gone", "bring it back")


class Later:
    """A desk whose questions are answered when a test says so."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.questions: list[tuple[Callable[[], Any], Callable[[Any], None], Callable[[AwayError], None]]] = []
        self.since = 0.0

    def ask(self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[AwayError], None]) -> None:
        self.questions.append((work, done, failed))

    def waiting(self) -> float:
        return self.since

    def close(self) -> None:
        self.ledger.close()

    def answer(self) -> None:
        """Answer what has been asked so far."""
        questions, self.questions = self.questions, []
        for work, done, _ in questions:
            done(work())

    def fail(self, committed: bool = False) -> None:
        questions, self.questions = self.questions, []
        for work, _, failed in questions:
            if committed:
                work()
            failed(AWAY)


class Slow(Bench):
    """A consumer with such a desk."""

    desk: Later

    def __init__(self, path: Path, effect: Any = None) -> None:
        def made(ledger: Ledger) -> Later:
            self.desk = Later(ledger)
            return self.desk

        super().__init__(path, effect, desk=made)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Slow]:
    made = Slow(tmp_path / "ledger.db")
    yield made
    made.close()


def test_orders_are_acknowledged_when_the_answer_comes_and_the_next_ones_are_collected_meanwhile(bench: Slow) -> None:
    bench.deliver(1, "a")
    bench.broker.fire()
    for tag, order_id in enumerate("bcd", 2):
        bench.deliver(tag, order_id)
        bench.broker.fire()
    assert (len(bench.desk.questions), bench.broker.acks, bench.state.in_flight) == (1, [], 4)
    bench.desk.answer()
    assert (bench.recorded(), bench.broker.acks) == (["a"], [1])
    assert len(bench.desk.questions) == 1  # for all of the others
    bench.desk.answer()
    assert (bench.recorded(), bench.broker.acks, bench.state.in_flight) == (["a", "b", "c", "d"], [1, 4], 0)
    assert bench.state.dispatched == 4


def test_waiting_for_an_answer_takes_no_turn_of_the_loop_and_no_work_an_order(
    bench: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "BATCH", 2)
    for tag in range(1, 9):
        bench.deliver(tag, f"order-{tag}")
    for _ in range(3):
        bench.broker.fire()
    assert bench.broker.timers == []
    monkeypatch.setattr(bench.consumer, "_check", lambda: pytest.fail("looked though there is no room"))
    bench.deliver(9, "order-9")


def test_what_was_not_recorded_is_held_and_recorded_with_what_came_since(bench: Slow) -> None:
    bench.deliver(1, "a")
    bench.broker.fire()
    bench.deliver(2, "b")
    bench.desk.fail()
    assert bench.state.reasons["ledger"] == "the ledger can't be written (the server is gone); orders are held"
    assert bench.broker.acks == []
    bench.consumer._retry_at = 0.0  # the time has come
    bench.broker.fire()
    bench.desk.answer()
    assert (bench.recorded(), bench.broker.acks) == (["a", "b"], [2])
    assert "ledger" not in bench.state.reasons


def test_what_was_committed_though_no_answer_came_is_acknowledged_the_next_time(bench: Slow) -> None:
    bench.deliver(1, "a")
    bench.broker.fire()
    bench.desk.fail(committed=True)
    bench.consumer._retry_at = 0.0
    bench.broker.fire()
    bench.desk.answer()
    assert (bench.recorded(), bench.broker.acks) == (["a"], [1])


def test_an_answer_that_comes_after_the_connection_is_lost_counts_and_acknowledges_nothing(bench: Slow) -> None:
    bench.deliver(1, "a")
    bench.broker.fire()
    bench.consumer.close()
    bench.desk.answer()
    assert (bench.recorded(), bench.broker.acks, bench.state.dispatched) == (["a"], [], 1)
    bench.deliver(2, "b")
    bench.desk.fail()
    assert bench.state.in_flight == 0


def test_a_drain_waits_for_the_answer_but_not_for_a_ledger_that_is_away(bench: Slow) -> None:
    drained: list[bool] = []
    bench.deliver(1, "a")
    bench.broker.fire()
    bench.consumer.drain(lambda: drained.append(True))
    assert drained == []
    bench.desk.answer()
    assert (drained, bench.broker.acks) == ([True], [1])
    other = Slow(bench.path.with_name("other.db"))
    other.deliver(1, "a")
    other.broker.fire()
    other.consumer.drain(lambda: drained.append(True))
    other.desk.fail()
    assert (drained, other.broker.acks) == ([True, True], [])
    other.close()


def test_an_order_has_its_effect_once_though_nobody_knows_yet_that_it_was_dispatched(tmp_path: Path) -> None:
    shop = Shop()
    bench = Slow(tmp_path / "ledger.db", shop)
    bench.ledger.record([("known", None, None, None, None, 0)])
    for tag, order_id in enumerate(("a", "known", "a"), 1):
        bench.deliver(tag, order_id)
    bench.broker.fire()
    assert shop.asked == []  # not before it is known which of them are new
    bench.desk.fail()
    bench.consumer._retry_at = 0.0
    bench.broker.fire()
    bench.desk.answer()
    bench.fire_until(lambda: shop.asked and bench.desk.questions)
    bench.deliver(4, "a")  # while its commit is on its way
    bench.broker.fire()
    for _ in range(5):
        bench.desk.answer()
        bench.broker.fire()
    assert (shop.asked, bench.recorded(), bench.broker.acks[-1]) == (["a"], ["a", "known"], 4)
    bench.close()


class Remote:
    """Stands for a ledger on the network."""

    def __init__(self) -> None:
        self.looks = self.interruptions = 0
        self.closed = False

    def look(self) -> None:
        self.looks += 1

    def interrupt(self) -> None:
        self.interruptions += 1

    def close(self) -> None:
        self.closed = True


# -- the thread -----------------------------------------------------------------------


def test_a_thread_asks_one_question_after_the_other_and_the_loop_calls_back() -> None:
    ready: list[Callable[[], None]] = []
    woken, gate = threading.Semaphore(0), threading.Event()

    def wake(callback: Callable[[], None]) -> None:
        ready.append(callback)
        woken.release()

    ledger: Any = Remote()
    desk = InThread(ledger, wake)
    told: list[object] = []

    def slow() -> str:
        assert gate.wait(20)
        return f"in {threading.current_thread().name}"

    def away() -> str:
        raise AWAY

    def broken() -> str:
        raise ZeroDivisionError

    desk.ask(slow, told.append, told.append)
    desk.ask(away, told.append, told.append)
    desk.ask(broken, told.append, told.append)
    until = time.monotonic() + 20
    while not desk.waiting():
        assert time.monotonic() < until
    gate.set()
    for _ in range(3):
        assert woken.acquire(timeout=20)
    assert told == []
    ready[0]()
    ready[1]()
    assert told == ["in ledger", AWAY]
    with pytest.raises(ZeroDivisionError):
        ready[2]()
    desk.close()
    assert desk.waiting() == 0.0


def test_what_is_asked_last_is_noted_before_the_process_ends() -> None:
    ledger: Any = Remote()
    desk = InThread(ledger, lambda _: None)
    noted: list[int] = []
    desk.ask(lambda: noted.append(1), lambda _: None, lambda _: None)
    desk.close()
    assert (noted, ledger.closed) == ([1], True)


def test_a_file_is_asked_at_once(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    told: list[object] = []
    AtOnce(ledger).ask(lambda: ledger.known(["a"]), told.append, told.append)
    assert told == [set()]
    assert not [thread for thread in threading.enumerate() if thread.name == "ledger"]
    ledger.close()


# -- the watch ------------------------------------------------------------------------


@pytest.fixture
def watched() -> tuple[Watch, Remote, Later, State, list[bool]]:
    ledger: Any = Remote()
    state, seen = State(), list[bool]()
    state.set("broker", None)
    return Watch(ledger, desk := Later(ledger), state, lambda: seen.append(True)), ledger, desk, state, seen


def test_it_is_not_ready_before_the_database_was_seen_and_while_it_is_away(watched: Any) -> None:
    watch, ledger, desk, state, seen = watched
    assert state.reasons == {"database": "not connected to the ledger's database yet"}
    watch.tick(now := time.monotonic())
    watch.tick(now)
    assert len(desk.questions) == 1
    desk.fail()
    assert state.reasons == {"database": "the ledger can't be used (the server is gone); orders are held"}
    watch.tick(now)
    assert desk.questions == []
    watch.tick(now + 2)
    desk.answer()
    assert (state.reasons, seen, ledger.looks) == ({}, [True], 1)
    watch.tick(now + 2)
    assert desk.questions == []
    watch.tick(now + 2 * watch_module.PERIOD)
    assert len(desk.questions) == 1


def test_a_silent_database_is_told_and_given_up_after_a_while(watched: Any, caplog: pytest.LogCaptureFixture) -> None:
    watch, ledger, desk, state, _ = watched
    watch.tick(now := time.monotonic())
    desk.answer()
    desk.since = watch_module.PATIENCE + 1
    for _ in range(3):
        watch.tick(now)
    assert state.reasons == {"database": "the ledger's database does not answer; orders are held"}
    assert [record.levelname for record in caplog.records if "does not answer" in record.message] == ["ERROR"]
    assert ledger.interruptions == 0
    desk.since = watch_module.DEADLINE + 1
    watch.tick(now)
    assert ledger.interruptions == 1
    desk.since = 0.0
    desk.answer()
    assert state.reasons == {}
