"""`dispatch dead export` and `import`: dead letters in a file, from which they can be put back octet for octet.

The file has one JSON object a line. Beside what `dispatch dead list` shows, each holds the `message` as it lay in the
queue: `properties` is AMQP's encoded property list in base64; `body` is the body as text, or `body-base64` where it is
not UTF-8.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from .deadletters import DeadLetters, Letter, Message
from .printable import to_json


class LetterFileError(Exception):
    """The file holds something else than dead letters; the message names the line."""


class LetterFile:
    """A new file for dead letters, which its owner alone may read; `count` tells how many are on the disk."""

    def __init__(self, path: Path) -> None:
        """Create it. Raises OSError, also where it exists."""
        self.count = 0
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _sync_directory(path.parent)  # or a power cut might take the file's name, and all its letters
        except OSError:
            self.close()
            raise

    def take(self, box: DeadLetters, letter: Letter) -> None:
        """Move a letter out of the queue into the file.

        It leaves the queue once it is on the disk, so wherever this ends, it is in the file or in the queue, or in
        both. Raises OSError with the file's name, and pika's exceptions.
        """
        try:
            self._append(_line(letter))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self.count += 1
        box.drop(letter)

    def close(self) -> None:
        """Close the file, and remove it where it holds no letter."""
        os.close(self._descriptor)
        if not self.count:
            self._path.unlink()

    def _append(self, line: bytes) -> None:
        """Write a line to the disk, whole or not at all. Raises OSError."""
        before = os.fstat(self._descriptor).st_size
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError:
            os.truncate(self._descriptor, before)
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


def restore(box: DeadLetters, found: list[tuple[str, Message]]) -> tuple[int, int]:
    """Put letters back into the dead-letter queue; return how many, and how many were there already.

    `found` holds the id of each, or "", and its message. Raises pika's exceptions; another call puts back the rest.
    """
    there = {_id(letter.notes) for letter in box.letters(None, None)}
    put = 0
    for letter_id, message in found:
        if letter_id and letter_id in there:
            continue
        box.put(message)
        there.add(letter_id)
        put += 1
    return put, len(found) - put


def _id(notes: Mapping[str, object]) -> str:
    """The id that Dispatch has given a letter; anyone may put one into the queue that has none, or another thing."""
    found = notes.get("id")
    return found if isinstance(found, str) else ""


def read(path: Path) -> Iterator[tuple[str, Message]]:
    """Yield the id of each letter in a file, "" for one without, and its message. Raises LetterFileError, OSError."""
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            return  # an export was ended in the middle of this line, and has left its letter in the queue
        try:
            letter = json.loads(line)
            message = letter["message"]
            body = message["body"].encode() if "body" in message else _decoded(message["body-base64"])
            yield _id(letter), Message(_decoded(message["properties"]), body)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise LetterFileError(
                f"line {number} of {path} is no dead letter that `dispatch dead export` has written ({error!r}); "
                "nothing has been put back"
            ) from error


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
