"""The threads in which effects come about, so that the event loop never waits for one.

An order that waits here is held unacknowledged. Only its body is kept, because a decoded order takes many times the
memory; a thread decodes it when its turn has come.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ..health import State
from ..logs import log
from ..orders import parse
from .port import Effect, EffectError
from .rate import Rate

LOOK = 0.2  # seconds between two looks at a breaker that lets no order pass

Finished = Callable[[list[tuple[str, "EffectError | None"]]], None]  # order ids and what went wrong


class Job(NamedTuple):
    """One order that waits for its effect."""

    order_id: str
    body: bytes
    finished: Finished
    round: int


class Result(NamedTuple):
    """What came of one try."""

    job: Job
    error: EffectError | None
    seconds: float
    again: bool  # the order is held, and will be tried again


class Workers:
    """Performs one effect for one order after another; a few at a time, if the effect allows it."""

    def __init__(
        self, effect: Effect, state: State, wake: Callable[[Callable[[], None]], None], rate: Rate | None
    ) -> None:
        """Start the threads. `wake` has the event loop call something soon, and may be called in any thread."""
        self._rate = rate
        self._effect, self._state, self._wake = effect, state, wake
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._round = 0  # of the jobs that count; what is left of earlier ones is not tried again
        self._results: list[Result] = []
        self._closed = False
        self._fault = f"{effect.name}-failed"
        state.effects.update({(effect.name, outcome): 0 for outcome in ("done", *effect.reasons)})
        for counter in (state.retried, state.dead):
            counter.update(dict.fromkeys((*effect.reasons, self._fault), 0))
        for number in range(effect.threads):
            threading.Thread(target=self._run, name=f"{effect.name}-{number}", daemon=True).start()

    def submit(self, order_id: str, body: bytes, finished: Finished) -> None:
        """Have the effect of an order come about; the event loop then calls `finished` with it and others."""
        with self._changed:
            self._jobs.append(Job(order_id, body, finished, self._round))
            self._changed.notify()

    def clear(self) -> list[str]:
        """Forget the orders that no thread has in hand, and return their ids; none of those is tried again."""
        with self._changed:
            left = [job.order_id for job in self._jobs]
            self._jobs.clear()
            self._round += 1
        return left

    def close(self) -> None:
        """Forget all orders, end the threads and give up the effect."""
        with self._changed:
            self._jobs.clear()
            self._closed = True
            self._changed.notify_all()
        self._effect.close()

    # -- in the threads ---------------------------------------------------------------

    def _run(self) -> None:
        while job := self._next():
            begun = time.monotonic()
            error = self._perform(job)
            self._settle(job, error, begun, time.monotonic())

    def _next(self) -> Job | None:
        """Return the next order as soon as it may be handed out, or None at the end."""
        with self._changed:
            while not self._closed:
                if not self._jobs:
                    self._changed.wait()
                elif wait := self._pause(time.monotonic()):
                    self._changed.wait(wait)
                else:
                    if self._rate:
                        self._rate.take()
                    return self._jobs.popleft()
        return None

    def _pause(self, now: float) -> float:
        """Return for how many seconds no order may be handed out."""
        if self._rate and (wait := self._rate.wait(now)):
            return wait
        breaker = self._effect.breaker  # asked last, because the order that it allows may be its only probe
        return LOOK if breaker and not breaker.allows(now) else 0.0

    def _perform(self, job: Job) -> EffectError | None:
        try:
            order = parse(job.body, len(job.body))  # which has succeeded before
            self._effect.perform(order)
        except EffectError as error:
            return error
        except BaseException as error:  # a fault of ours must not end the thread, for orders would wait for ever
            return EffectError(self._fault, repr(error), kind=type(error).__name__)
        return None

    def _settle(self, job: Job, error: EffectError | None, begun: float, now: float) -> None:
        with self._changed:
            if breaker := self._effect.breaker:
                if error and error.away:
                    breaker.away(now, error.after)
                else:
                    breaker.succeeded()  # whatever it answered, it is there
                if error and breaker.state == "closed":
                    error.away = False  # while others get through, this order may be at fault
            again = error is not None and error.away and job.round == self._round and not self._closed
            if again:
                self._jobs.append(job)  # the next probe is another order, because this one may be at fault after all
            self._results.append(Result(job, error, now - begun, again))
            first = len(self._results) == 1
        if first:
            self._wake(self._report)

    # -- in the event loop ------------------------------------------------------------

    def _report(self) -> None:
        """Count what has happened since the last call, and pass on what is finished."""
        with self._changed:
            results, self._results = self._results, []
        finished: dict[Finished, list[tuple[str, EffectError | None]]] = {}
        for result in results:
            self._count(result)
            if not result.again:
                finished.setdefault(result.job.finished, []).append((result.job.order_id, result.error))
        for callback, some in finished.items():
            callback(some)

    def _count(self, result: Result) -> None:
        state, error, effect = self._state, result.error, self._effect
        state.effects[effect.name, error.reason if error else "done"] += 1
        state.effect_seconds.observe(result.seconds)
        if error and error.away:
            if not state.held:
                log.error("%s: %s; orders are held until it is back", error.reason, error)
            state.held = f"{error}; orders are held", state.held[1] if state.held else time.monotonic()
            if not effect.breaker:  # what is away is no endpoint: the release is at fault, and must not go live
                state.set("effect", state.held[0])
        elif state.held:
            state.held = None
            state.set("effect", None)
            log.info("the %s is back; orders go on", effect.name)
