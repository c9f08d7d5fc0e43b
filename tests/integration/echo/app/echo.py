"""A service that answers every request with its greeting, so that it is ready as soon as it answers."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["ECHO_GREETING"].encode())


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(os.environ["ECHO_PORT"])), Handler).serve_forever()
