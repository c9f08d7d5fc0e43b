"""The lab's payment as a process of its own: `python -m tests.integration.consumer.paying PORT AMQP_PORT VHOST`.

uWSGI runs it on a host, and it knows one port of a broker and one virtual host.
"""

from __future__ import annotations

import sys
from functools import partial
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tests.lab.shop import SOURCE

sys.path.insert(0, str(SOURCE))
import payment  # type: ignore[import-not-found]  # it is found by the path above


class Server(ThreadingMixIn, WSGIServer):
    """Answers while it asks itself, as the user and cart services that payment asks."""

    daemon_threads = True


class Handler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    port, amqp_port = map(int, sys.argv[1:3])
    payment.PORT = port
    payment.pika.ConnectionParameters = partial(
        payment.pika.ConnectionParameters, port=amqp_port, virtual_host=sys.argv[3]
    )
    make_server("127.0.0.1", port, payment.app, Server, Handler).serve_forever()
