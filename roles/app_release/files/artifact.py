"""Says of an artifact on the controller what the role checks, as JSON: ``python artifact.py PATH``.

One short program, for a stat and a listing by modules of their own take a hundred times as long on each host.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import traceback
import zipfile
from pathlib import Path
from typing import Any


def describe(path: str) -> dict[str, Any]:
    """`isreg` and `checksum`, its SHA-256; `listing` of a zip, as ``python -m zipfile -l`` prints it, or `error`."""
    file = Path(path).expanduser()
    if not file.is_file():
        return {"isreg": False}
    said: dict[str, Any] = {"isreg": True, "checksum": hashlib.sha256(file.read_bytes()).hexdigest(), "error": ""}
    listing = io.StringIO()
    try:
        with zipfile.ZipFile(file) as archive:
            archive.printdir(file=listing)
    except (zipfile.BadZipFile, OSError) as error:
        said["error"] = "".join(traceback.format_exception_only(error)).strip()
    return {**said, "listing": listing.getvalue()}


if __name__ == "__main__":
    print(json.dumps(describe(sys.argv[1])))
