"""The lab's payment: its artifact, and orders by way of it."""

from __future__ import annotations

import json
import zipfile
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from tests.lab import LabError

SOURCE = Path(__file__).with_name("payment")
ANSWER_SECONDS = 10


def write_artifact(path: Path) -> None:
    """Write payment's zip. The same files make the same octets, so that a second run finds the same release."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(SOURCE.iterdir()):
            if file.is_file():
                archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())


def pay(port: int, user: str, cart: dict[str, Any]) -> str:
    """Pay for a cart, as the shop's page does, at payment's port on this machine; return the order's id.

    Raises LabError.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("POST", f"/pay/{user}", json.dumps(cart), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read().decode(errors="replace")
        if answer.status != HTTPStatus.OK:
            raise LabError(f"payment answers {answer.status} to an order: {said}")
        return str(json.loads(said)["orderid"])
    except (OSError, HTTPException) as error:
        raise LabError(f"payment does not answer on port {port} of this machine: {error}") from error
    finally:
        connection.close()
