"""The command line: exit codes, output, and help for every subcommand."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pika.exceptions import StreamLostError

from dispatch_app import __version__
from dispatch_app.__main__ import EX_CONFIG, EX_DATAERR, EX_IOERR, EX_UNAVAILABLE, _show, main
from dispatch_app.deadletters import Letter, Message
from dispatch_app.ledgers.sqlite import SqliteLedger


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("AMQP_HOST", "AMQP_PASS", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.record([("a", "ann", 1.5, 2, "c-1", 0), ("b", "bob", None, None, None, 1)])
    yield tmp_path
    ledger.close()


@pytest.mark.parametrize(
    "command",
    ["", "run", "check", "drain", "publish", "move", "orders", "dead", "dead list", "dead show", "dead replay",
     "dead purge", "dead export", "dead import", "ledger", "ledger backup"],
)  # fmt: skip
def test_every_subcommand_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    assert caught.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_the_version_is_told_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dispatch {__version__}\n"
    assert main(["--version", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"version", "release", "commit", "python", "dependencies"}
    assert told["version"] == __version__


def test_a_command_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--json"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        assert "required: COMMAND" in capsys.readouterr().err


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
    assert main(["orders", "--correlation-id", "c-1"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["id", "a"]


def test_nothing_that_others_wrote_moves_the_cursor_or_forges_a_row(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x1b[31mFAKE\rrow\nnext\x7f\x85\x9b\u2028\u202e\u2066"
    ledger = SqliteLedger(state / "ledger.db")
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


@pytest.mark.usefixtures("state")
def test_what_is_wrong_with_a_file_is_said_of_the_file_and_not_of_the_broker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMQP_HOST", "localhost,localhost")
    monkeypatch.setenv("AMQP_PASS", "x")
    there, missing = tmp_path / "there", tmp_path / "missing"
    there.write_text("precious")
    monkeypatch.setattr("dispatch_app.publish.publish", lambda _, __, bodies, ___: list(bodies))
    for command, said in (
        (["dead", "export", "--all", str(there)], f"File exists: '{there}'"),
        (["dead", "import", str(missing)], f"No such file or directory: '{missing}'"),
        (["publish", "--file", str(missing)], f"No such file or directory: '{missing}'"),
    ):
        assert main(command) == EX_IOERR
        errors = capsys.readouterr().err
        assert said in errors
        assert "localhost" not in errors
    assert there.read_text() == "precious"


def box(*letters: Letter, then: Exception | None = None) -> type:
    """A dead-letter queue in memory, whose broker goes away after the last letter if told so."""

    class Box:
        def __init__(self, *_: object) -> None:
            self.close = self.drop = lambda *_: None

        def letters(self, *_: object) -> Iterator[Letter]:
            yield from letters
            if then:
                raise then

    return Box


def test_an_export_that_the_broker_ends_tells_where_the_letters_are(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMQP_HOST", "localhost")
    monkeypatch.setenv("AMQP_PASS", "x")
    letter = Letter(1, Message(b"\0\0", b"body"), b"\0\0", b"body", {})
    monkeypatch.setattr("dispatch_app.deadletters.DeadLetters", box(letter, then=StreamLostError("gone")))
    with pytest.raises(SystemExit, match=str(EX_UNAVAILABLE)):
        main(["dead", "export", "--all"])
    (file,) = state.glob("dead-letters-*.jsonl")
    output = capsys.readouterr()
    assert output.out == f"1 dead letters moved to {file}; `dispatch dead import` puts them back\n"
    assert "dropped the connection" in output.err
    monkeypatch.setattr("dispatch_app.deadletters.DeadLetters", box(then=StreamLostError("gone")))
    with pytest.raises(SystemExit):
        main(["dead", "export", "--all", str(state / "none")])
    assert capsys.readouterr().out == ""
    assert not (state / "none").exists()


@pytest.mark.usefixtures("state")
def test_a_list_may_be_cut_short_by_its_reader(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMQP_HOST", "localhost")
    monkeypatch.setenv("AMQP_PASS", "x")
    monkeypatch.setattr("dispatch_app.deadletters.DeadLetters", box(then=BrokenPipeError()))
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    assert main(["dead", "list", "--json"]) == 0
    assert capfd.readouterr().err == ""


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
