"""An artifact is fetched by its checksum, once, and says what it is."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ansible.module_utils import app_fetch


def zipped(name: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, "")
    return held.getvalue()


GO, OTHER = zipped("main.go"), zipped("README")


class Server(HTTPServer):
    """Answers with `body`, and counts how often."""

    body, asked = GO, 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked += 1
        self.send_response(200 if self.path == "/x.zip" else 404)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def request(server: Server, path: Path, body: bytes = GO, file: str = "x.zip") -> dict[str, str]:
    source = f"http://127.0.0.1:{server.server_port}/{file}"
    return {
        "name": "dispatch",
        "source": source,
        "signature": f"{source}.sig",
        "signers": "",
        "revoked": "",
        "sha256": hashlib.sha256(body).hexdigest(),
        "path": str(path / "held.zip"),
    }


def test_what_has_been_fetched_is_told_and_not_fetched_again(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert app_fetch.main(request(server, tmp_path)) == 0
        assert json.loads(capsys.readouterr().out) == {"kind": "go", "go": "", "installer": False}
    assert server.asked == 1
    (held,) = tmp_path.iterdir()
    assert (held.read_bytes(), held.stat().st_mode & 0o777) == (GO, 0o600)


@pytest.mark.parametrize(
    ("body", "file", "said"), [(OTHER, "x.zip", "what came has the SHA-256"), (GO, "y.zip", "HTTP Error 404")]
)
def test_what_can_t_be_had_is_told_and_leaves_nothing(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    body: bytes,
    file: str,
    said: str,
) -> None:
    assert app_fetch.main(request(server, tmp_path, body, file)) == 0
    failure = json.loads(capsys.readouterr().out)["failure"]
    assert failure.startswith("dispatch_artifact is http://127.0.0.1")
    assert said in failure
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_artifact_is_told(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.body = OTHER
    app_fetch.main(request(server, tmp_path, OTHER))
    assert "and that zip is none of the three" in json.loads(capsys.readouterr().out)["failure"]
