"""Dead letters that go into a file and come back: each is in the file or in the queue, whatever happens."""

from __future__ import annotations

import json
import multiprocessing
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dispatch_app import letterfile
from dispatch_app.amqp import envelope
from dispatch_app.deadletters import Letter, Message
from dispatch_app.letterfile import LetterFile, LetterFileError

RAW = b"\x10\x00\x02"  # a property list with a delivery mode alone
BODIES = (b'{"orderid": "one"}', b"", b"\xff\xfe\x00\r\n", '"\u2028\ud83d\ude00"'.encode("utf-8", "surrogatepass"))


class Box:
    """A dead-letter queue in memory."""

    def __init__(self, *messages: Message) -> None:
        self.queue = list(messages)
        self.kept = ""  # what the file held at the last acknowledgement

    def letters(self, *_: None) -> list[Letter]:
        return [Letter(tag, stored, *envelope.unwrap(*stored)) for tag, stored in enumerate(self.queue)]

    def drop(self, letter: Letter) -> None:
        self.queue.remove(letter.stored)

    def put(self, message: Message) -> None:
        self.queue.append(message)


def message(number: int, body: bytes) -> Message:
    return Message(*envelope.wrap(RAW, body, {"id": f"letter-{number}", "reason": "test"}, envelope.IN_PLACE, 131072))


@pytest.fixture
def messages() -> list[Message]:
    return [message(number, body) for number, body in enumerate(BODIES)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "letters.jsonl"


def moved(box: Any, path: Path) -> int:
    with closing(LetterFile(path)) as file:
        for letter in box.letters():
            file.take(box, letter)
    return file.count


def restore(box: Any, path: Path) -> tuple[int, int]:
    return letterfile.restore(box, list(letterfile.read(path)))


def test_letters_come_back_octet_for_octet(messages: list[Message], path: Path) -> None:
    box: Any = Box(*messages)
    assert moved(box, path) == len(BODIES)
    assert box.queue == []
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text().splitlines()[0])["message"]["body"] == '{"orderid": "one"}'
    assert restore(box, path) == (len(BODIES), 0)
    assert box.queue == messages


def test_a_second_import_puts_nothing_back_twice(messages: list[Message], path: Path) -> None:
    box: Any = Box(*messages)
    moved(box, path)
    box.queue = messages[:1]  # an import that was ended after the first letter
    assert restore(box, path) == (len(BODIES) - 1, 1)
    assert restore(box, path) == (0, len(BODIES))


def test_a_file_that_exists_is_left_as_it_is(messages: list[Message], path: Path) -> None:
    path.write_text("precious")
    box: Any = Box(*messages)
    with pytest.raises(FileExistsError):
        moved(box, path)
    assert path.read_text() == "precious"
    assert box.queue == messages


def test_no_file_is_left_where_there_was_no_letter(path: Path) -> None:
    assert moved(Box(), path) == 0
    assert not path.exists()


def test_a_letter_leaves_the_queue_only_once_it_is_on_the_disk(
    messages: list[Message], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_text()))
    box: Any = Box(*messages)
    dropped: list[int] = []

    def drop(letter: Letter) -> None:
        assert f'"letter-{letter.tag}"' in synced[-1]
        dropped.append(letter.tag)

    box.drop = drop
    moved(box, path)
    assert dropped == [0, 1, 2, 3]


def test_a_full_disk_leaves_the_rest_in_the_queue(
    messages: list[Message], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, lines = os.write, 0

    def full(descriptor: int, octets: bytes) -> int:
        nonlocal lines
        lines += 1
        if lines == 4:
            raise OSError(28, "No space left on device")
        return write(descriptor, octets[: len(octets) // 2] if lines == 3 else octets)

    monkeypatch.setattr(os, "write", full)
    box: Any = Box(*messages)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        moved(box, path)
    monkeypatch.undo()
    assert box.queue == messages[2:]
    assert restore(box, path) == (2, 0)
    assert sorted(box.queue) == sorted(messages)


def test_a_line_that_was_cut_short_is_left_out(messages: list[Message], path: Path) -> None:
    box: Any = Box(*messages)
    moved(box, path)
    path.write_bytes(path.read_bytes()[:-10])  # the export was killed while it wrote its last letter
    assert restore(box, path) == (len(BODIES) - 1, 0)


@pytest.mark.parametrize(
    "line", ["no JSON", "[]", "{}", '{"message": {"properties": "!", "body": ""}}', '{"message": 1}']
)
def test_a_file_of_something_else_is_refused_before_anything_is_put_back(
    line: str, messages: list[Message], path: Path
) -> None:
    moved(Box(*messages), path)
    path.write_text(f"{path.read_text()}{line}\n")
    box: Any = Box()
    with pytest.raises(LetterFileError, match=f"line 5 of {path} is no dead letter"):
        restore(box, path)
    assert box.queue == []


def test_a_letter_without_an_id_comes_back_each_time(path: Path) -> None:
    box: Any = Box(Message(RAW, b"put here by hand"))
    moved(box, path)
    assert restore(box, path) == restore(box, path) == (1, 0)


def test_a_letter_whose_acknowledgement_was_lost_comes_back_once(messages: list[Message], path: Path) -> None:
    box: Any = Box(messages[0])
    with closing(LetterFile(path)) as file:
        (letter,) = box.letters()
        deaf: Any = Box(*messages)
        file.take(deaf, letter)  # the broker never hears of it, and delivers the letter again
        file.take(box, letter)
    assert file.count == 2
    assert restore(box, path) == (1, 1)
    assert box.queue == messages[:1]


@pytest.mark.parametrize("forged", [b"\x02\x03", 7])
def test_a_letter_with_a_forged_id_hinders_no_other(forged: Any, messages: list[Message], path: Path) -> None:
    odd = Message(*envelope.wrap(RAW, b"odd", {"id": forged}, envelope.IN_PLACE, 131072))
    box: Any = Box(odd, *messages)
    moved(box, path)
    box.queue = [odd]
    assert restore(box, path) == (len(messages) + 1, 0)


@pytest.mark.parametrize("moment", [1, 7, 30])
def test_a_killed_export_has_each_letter_in_the_file_or_in_the_queue(moment: int, path: Path) -> None:
    letters = [message(number, b"x" * 20_000) for number in range(200)]
    heard, tell = os.pipe()

    def run() -> None:
        box: Any = Box(*letters)
        box.drop = lambda letter: os.write(tell, letter.tag.to_bytes(1, "big"))
        moved(box, path)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    os.close(tell)
    with os.fdopen(heard, "rb", buffering=0) as acknowledgements:
        gone = [acknowledgements.read(1) for _ in range(moment)]
        process.kill()
        while tag := acknowledgements.read(1):
            gone.append(tag)
    process.join()
    assert moment <= len(gone) < len(letters)
    assert {f"letter-{tag[0]}" for tag in gone} <= {letter_id for letter_id, _ in letterfile.read(path)}
