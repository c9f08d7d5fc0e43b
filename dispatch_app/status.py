"""Asks the service, by HTTP, what it says of itself."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException

_SECONDS, _MOST = 2.0, 1 << 20  # for one answer, and octets of it


def ask(url: str) -> tuple[int, str]:
    """GET a URL; return the status and the text, or 0 and the error where nobody answers in time."""
    answers: list[tuple[int, str]] = []
    # A timeout of the socket's starts anew with every octet, so an answer could take for ever.
    asking = threading.Thread(target=lambda: answers.append(_get(url)), daemon=True)
    asking.start()
    asking.join(_SECONDS)
    return answers[0] if answers else (0, f"no whole answer within {_SECONDS:g} s")


def counters(url: str) -> Mapping[str, float]:
    """The metrics at a URL by name, labels included; none where nobody answers with any."""
    status, text = ask(url)
    lines = (line.rpartition(" ") for line in text.splitlines() if status == 200 and not line.startswith("#"))
    try:
        return {name: float(value) for name, _, value in lines}
    except ValueError:
        return {}


def _get(url: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=1) as answer:
            return int(answer.status), answer.read(_MOST).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_MOST).decode("utf-8", "replace")
    except (OSError, ValueError, HTTPException) as error:
        return 0, str(error)
