"""A stand-in for HashiCorp Vault on loopback: it answers reads of the key-value store, version 2, and nothing else."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ACCEPTED = "hvs.test"  # the token that the stand-in takes


@contextlib.contextmanager
def vault(secrets: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Serve `secrets`, the keys and values by their paths below the mount ``secret``; yield the server's URL.

    The answers are those of https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#read-secret-version: 403
    without the token, 404 for a path that has no secret.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = secrets.get(self.path.removeprefix("/v1/secret/data/"))
            if self.headers["X-Vault-Token"] != ACCEPTED:
                self.answer(403, {"errors": ["permission denied"]})
            elif found is None:
                self.answer(404, {"errors": []})
            else:
                self.answer(200, {"data": {"data": found, "metadata": {"version": 1, "destroyed": False}}})

        def answer(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
