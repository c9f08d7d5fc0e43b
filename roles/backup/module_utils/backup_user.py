"""Does something as another user: root reads no database that a service has written. For Python 3.9 and later."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.server_files import RefusedError

PLACE = Path("/var/tmp")  # noqa: S108 - a private directory is made in it, and a ledger may be too large for /tmp


@contextmanager
def private_directory(owner: tuple[int, int]) -> Iterator[Path]:
    """A directory that a user and root alone can enter, for as long as the block takes."""
    made = Path(tempfile.mkdtemp(prefix="backup-", dir=PLACE))
    try:
        os.chown(made, *owner)
        yield made
    finally:
        shutil.rmtree(made)


def as_user(owner: tuple[int, int], work: Callable[[], Any]) -> Any:
    """What `work` returns, which JSON has to be able to say, done in a process of that user's and group's.

    Raises RefusedError with what went wrong there.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        answer = _answer(owner, work)
        with os.fdopen(writing, "w") as stream:
            stream.write(json.dumps(answer))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    if not said:
        raise RefusedError(f"the process that reads the ledger was ended from outside (status {status})")
    result, refused = json.loads(said)
    if refused is not None:
        raise RefusedError(refused)
    return result


def _answer(owner: tuple[int, int], work: Callable[[], Any]) -> tuple[Any, str | None]:
    """The result, or the reason why there is none."""
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(owner[1])
            os.setuid(owner[0])
        return work(), None
    except Exception as error:
        return None, str(error)
