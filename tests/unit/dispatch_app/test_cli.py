"""The command line: exit codes, output, and help for every subcommand."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatch_app.__main__ import EX_CONFIG, EX_DATAERR, EX_IOERR, _show, main
from dispatch_app.ledger import Ledger


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("AMQP_HOST", "AMQP_PASS", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.record([("a", "ann", 1.5, 2, "c-1", 0), ("b", "bob", None, None, None, 1)])
    yield tmp_path
    ledger.close()


@pytest.mark.parametrize(
    "command",
    ["", "run", "check", "drain", "publish", "orders", "dead", "dead list", "dead show", "dead replay", "dead purge",
     "dead export", "dead import", "ledger", "ledger backup"],
)  # fmt: skip
def test_every_subcommand_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    assert caught.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


@pytest.mark.parametrize("command", ["run", "check", "drain", "publish", "dead list"])
@pytest.mark.usefixtures("state")
def test_bad_settings_end_it_before_anything_is_done(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMQP_HOST", "<RABBITMQ-IP>")
    assert main(command.split()) == EX_CONFIG
    errors = capsys.readouterr().err
    assert "AMQP_HOST is still the placeholder" in errors
    assert "AMQP_PASS is not set" in errors


@pytest.mark.usefixtures("state")
def test_orders_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["orders", "--json", "--user", "ann"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    order = json.loads(line)
    assert order.pop("dispatched_at").endswith("Z")
    assert order == {
        "id": "a", "user": "ann", "total": 1.5, "items": 2, "correlation_id": "c-1", "redelivered": False,
    }  # fmt: skip


@pytest.mark.usefixtures("state")
def test_orders_as_a_table_with_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["orders"]) == 0
    header, newest, oldest = capsys.readouterr().out.splitlines()
    assert header.split() == ["dispatched_at", "id", "user", "items", "total", "correlation_id"]
    assert newest.split()[1:] == ["b", "bob", "-", "-", "-"]
    assert oldest.split()[1:] == ["a", "ann", "2", "1.5", "c-1"]
    assert main(["orders", "--since", "2999-01-01T00:00:00Z"]) == 0
    assert main(["orders", "--since", "2020-01-01", "--limit", "1", "--id", "a"]) == 0
    assert capsys.readouterr().out.count("ann") == 1


def test_nothing_that_others_wrote_moves_the_cursor_or_forges_a_row(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x1b[31mFAKE\rrow\nnext\x7f\x85\x9b\u2028\u202e\u2066"
    ledger = Ledger(state / "ledger.db")
    ledger.record([("esc-1", evil, None, None, evil, 0)])
    ledger.close()
    for option in ([], ["--json"]):
        assert main(["orders", "--id", "esc-1", *option]) == 0
        lines = capsys.readouterr().out.split("\n")
        assert len(lines) == (2 if option else 3)
        assert all(line.isprintable() for line in lines)
        assert any("\\u202e" in line for line in lines)


def test_a_dead_letter_s_notes_forge_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    _show([{"reason": "\x1b[2J\r\n", "id": "x"}], ("id", "reason"), False)
    assert capsys.readouterr().out == "id  reason\nx   \\x1b[2J\\r\\n\n"


@pytest.mark.parametrize(
    "arguments",
    [["orders", "--limit", "0"], ["orders", "--since", "soon"], ["publish", "--count", "-1"],
     ["publish", "--interval", "nan"], ["dead", "replay"], ["dead", "replay", "--all", "--id", "x"], []],
)  # fmt: skip
def test_a_bad_command_line_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_backup(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = state / "copy.db"
    assert main(["ledger", "backup", str(target)]) == 0
    assert "2 orders copied" in capsys.readouterr().out
    assert main(["ledger", "backup", str(target)]) == EX_IOERR


def test_a_ledger_that_is_missing_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert main(["orders"]) == EX_IOERR
    (tmp_path / "ledger.db").write_bytes(b"garbage" * 1000)
    assert main(["orders"]) == EX_DATAERR
