"""`dispatch dead export` and `import`: dead letters in a file, from which they can be put back octet for octet.

The file has one JSON object a line. Beside what `dispatch dead list` shows, each holds the `message` as it lay in the
queue: `properties` is AMQP's encoded property list in base64; `body` is the body as text, or `body-base64` where it is
not UTF-8.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .deadletters import DeadLetters, Letter, Message
from .printable import to_json


class LetterFileError(Exception):
    """The file holds something else than dead letters; the message names the line."""


def export(box: DeadLetters, letters: Iterable[Letter], path: Path) -> int:
    """Move letters out of the queue into a new file that its owner alone may read; return how many.

    A letter leaves the queue once it is on the disk, so wherever this ends, each is in the file or in the queue, or in
    both. Raises OSError, also where the file exists, and pika's exceptions.
    """
    count = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _sync_directory(path.parent)  # or a power cut might take the file's name, and all its letters
        for letter in letters:
            _append(descriptor, _line(letter))
            count += 1
            box.drop(letter)
    finally:
        os.close(descriptor)
        if not count:
            path.unlink()
    return count


def _append(descriptor: int, line: bytes) -> None:
    """Write a line to the disk, whole or not at all. Raises OSError."""
    before = os.fstat(descriptor).st_size
    try:
        left = memoryview(line)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except OSError:
        os.truncate(descriptor, before)
        raise


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(letter: Letter) -> bytes:
    raw, body = letter.stored
    message = {"properties": _encoded(raw)}
    try:
        message["body"] = body.decode()
    except UnicodeDecodeError:
        message["body-base64"] = _encoded(body)
    return f"{to_json({**letter.summary(), 'message': message})}\n".encode()


def _encoded(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def restore(box: DeadLetters, path: Path) -> tuple[int, int]:
    """Put the letters of a file back into the dead-letter queue; return how many, and how many were there already.

    The file is left as it is. Raises LetterFileError before anything is put back, OSError, and pika's exceptions.
    """
    found = list(_read(path))
    there = {letter.notes.get("id") for letter in box.letters(None, None)} - {None}
    lacking = [message for letter_id, message in found if letter_id not in there]
    for message in lacking:
        box.put(message)
    return len(lacking), len(found) - len(lacking)


def _read(path: Path) -> Iterator[tuple[Any, Message]]:
    """Yield the id of each letter in a file, None for one without, and its message. Raises LetterFileError, OSError."""
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            return  # an export was ended in the middle of this line, and has left its letter in the queue
        try:
            letter = json.loads(line)
            message = letter["message"]
            body = message["body"].encode() if "body" in message else _decoded(message["body-base64"])
            yield letter.get("id"), Message(_decoded(message["properties"]), body)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise LetterFileError(
                f"line {number} of {path} is no dead letter that `dispatch dead export` has written ({error!r}); "
                "nothing has been put back"
            ) from error


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
