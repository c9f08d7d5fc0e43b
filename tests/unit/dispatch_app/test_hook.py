"""Whatever a hook does, it harms its own process alone, and the next order goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatch_app import effects
from dispatch_app.effects.hook import Hook
from dispatch_app.effects.port import EffectError
from dispatch_app.orders import Order, parse
from dispatch_app.settings import SettingsError, load

HOOK = """
import json, os, signal, subprocess, sys, time

class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")

def hook(order):
    with open("asked", "a") as file:
        print(json.dumps([os.getpid(), order]), file=file)
    print("printed for", order.id)
    os.write(1, b"written straight to standard output\\n")
    exec(order.document.get("do", ""))
"""
GOOD = {"AMQP_HOST": "a", "AMQP_PASS": "secret"}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a hook, in which the tests run."""
    (tmp_path / "shop.py").write_text(HOOK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def hook(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    assert shop.is_dir()
    monkeypatch.setattr("dispatch_app.effects.hook.BACKOFF", (0.0, 0.0))
    made = Hook("shop:hook", 20)
    yield made
    made.close()


def order(do: str = "", **more: object) -> Order:
    return Order("o-1", "ann", 9.5, 1, {"orderid": "o-1", "do": do, **more})


def asked(shop: Path) -> list[str]:
    return (shop / "asked").read_text().splitlines()


def pid(hook: Hook) -> int:
    assert hook._process
    return hook._process.pid


def failure(hook: Hook, do: str) -> EffectError:
    with pytest.raises(EffectError) as caught:
        hook.perform(order(do))
    assert not caught.value.away
    hook.perform(order())  # the next one goes on
    return caught.value


def test_a_hook_gets_the_whole_order_and_may_print(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hook = Hook("shop:hook", 20)
    odd = b'"total": 1e999, "note": "\xff\x07", "n": 12345678901234567890'
    whole = parse(b'\xef\xbb\xbf{"orderid": "o-1", ' + odd + b"}")
    hook.perform(whole)
    hook.perform(order())
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("printed for o-1") == err.count("written straight") == 2
    assert json.loads(asked(shop)[0])[1] == json.loads(json.dumps(whole))
    assert len({json.loads(line)[0] for line in asked(shop)}) == 1
    hook.close()


@pytest.mark.parametrize(
    ("do", "kind", "text"),
    [
        ("raise ConnectionError('the courier is away')", "ConnectionError", "the courier is away"),
        ("sys.exit(3)", "SystemExit", "3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise MuteError", "MuteError", "(its text can't be made: RuntimeError)"),
        ("raise ValueError('\\ud800\\0')", "ValueError", "\ud800\0"),
        ("f = lambda g: g(g)\nf(f)", "RecursionError", "maximum recursion depth exceeded"),
    ],
)
def test_what_a_hook_raises_is_told_and_its_process_goes_on(hook: Hook, do: str, kind: str, text: str) -> None:
    before = pid(hook)
    error = failure(hook, do)
    assert (error.reason, error.kind, pid(hook)) == ("hook-failed", kind, before)
    assert str(error).startswith(text)


@pytest.mark.parametrize(
    ("do", "how"),
    [
        ("os._exit(3)", "ended with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
    ],
)
def test_a_hook_that_dies_is_started_again(hook: Hook, do: str, how: str) -> None:
    before = pid(hook)
    error = failure(hook, do)
    assert (error.reason, str(error)) == ("hook-died", f"its process {how}")
    assert pid(hook) != before


def test_a_hook_that_died_between_two_orders_is_no_order_s_fault(hook: Hook, shop: Path) -> None:
    os.kill(pid(hook), signal.SIGKILL)
    os.waitid(os.P_PID, pid(hook), os.WEXITED | os.WNOWAIT)
    hook.perform(order())
    assert len(asked(shop)) == 1


def test_a_hook_that_hangs_is_killed_with_what_it_has_started(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatch_app.effects.hook.BACKOFF", (0.0, 0.0))
    hook = Hook("shop:hook", 20)
    hook._seconds = 1
    with pytest.raises(EffectError) as caught:
        hook.perform(order("p = subprocess.Popen(['sleep', '60']); open('child', 'w').write(str(p.pid)); p.wait()"))
    assert (caught.value.reason, caught.value.away) == ("hook-timeout", False)
    assert "1 s" in str(caught.value)
    hook._seconds = 20
    hook.perform(order())
    until_gone(int((shop / "child").read_text()))
    hook.close()


def until_gone(process: int) -> None:
    until = time.monotonic() + 20
    while Path(f"/proc/{process}").exists() and " Z " not in Path(f"/proc/{process}/stat").read_text():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_delay_before_a_start_grows_with_each_death_and_ends_with_a_call_that_returns(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatch_app.effects.hook.BACKOFF", (0.01, 0.03))
    delays = []
    for _ in range(4):
        with pytest.raises(EffectError):
            hook.perform(order("os._exit(1)"))
        delays.append(hook._delay)
    assert delays == [0.01, 0.02, 0.03, 0.03]
    hook.perform(order())
    assert hook._delay == 0.0


def test_while_a_hook_can_t_be_started_no_order_is_at_fault(hook: Hook, shop: Path) -> None:
    (shop / "shop.py").write_text("def hook(order: missing): pass")
    os.kill(pid(hook), signal.SIGKILL)
    os.waitid(os.P_PID, pid(hook), os.WEXITED | os.WNOWAIT)
    for _ in range(2):
        with pytest.raises(EffectError, match=r"can't be imported \(NameError: name 'missing'") as caught:
            hook.perform(order())
        assert caught.value.away
    (shop / "shop.py").write_text(HOOK + "# mended\n")
    hook.perform(order())


def test_a_hook_gets_neither_the_password_nor_the_way_to_systemd(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AMQP_PASS", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "/secret")
    monkeypatch.setenv("SHOP_COURIER", "dhl")
    hook = Hook("shop:hook", 20)
    hook.perform(order("assert '/secret' not in os.environ.values() and os.environ['SHOP_COURIER'] == 'dhl'"))
    hook.close()
    assert len(asked(shop)) == 1


def test_a_hook_ends_with_its_parent_even_amid_a_call(shop: Path) -> None:
    program = "\n".join([
        "from dispatch_app.effects.hook import Hook",
        "from dispatch_app.orders import Order",
        "hook = Hook('shop:hook', 60)",
        "print(hook._process.pid, flush=True)",
        "hook.perform(Order('o', None, None, None, {'do': 'time.sleep(60)'}))",
    ])  # fmt: skip
    path = os.pathsep.join(filter(None, sys.path))
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    assert parent.stdout
    child = int(parent.stdout.readline())
    while not (shop / "asked").exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGTERM)  # as systemd does, to all processes of a service that stops
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until_gone(child)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing:hook", "ModuleNotFoundError: No module named 'missing'"),
        ("shop:missing", "AttributeError: module 'shop' has no attribute 'missing'"),
        ("fatal:hook", "its process ended with exit code 7"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_a_hook_that_can_t_be_imported_is_a_bad_setting(name: str, why: str) -> None:
    Path("fatal.py").write_text("import os; os._exit(7)")
    with pytest.raises(SettingsError) as caught:
        effects.configured(load({**GOOD, "DISPATCH_HOOK": name}))
    (problem,) = caught.value.problems
    assert problem.startswith(f"DISPATCH_HOOK {name}: it can't be imported")
    assert why in problem


def test_without_a_setting_there_is_no_effect_and_a_rate_alone_has_one_that_does_nothing() -> None:
    assert effects.configured(load(GOOD)) is None
    limited = effects.configured(load({**GOOD, "DISPATCH_RATE_PER_SECOND": "5"}))
    assert limited
    limited.perform(order())
