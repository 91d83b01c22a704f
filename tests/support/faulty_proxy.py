"""A proxy in front of an S3 server that does to some requests what networks and busy servers do."""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

RATES = {"error": 0.05, "reset": 0.02, "delay": 0.01, "cut": 0.02, "lie": 0.02}
"""Share of the requests that get each fault: a 500 or 503, a connection reset before or after the server has done what
it was asked, seconds of waiting, a body that ends early, and one that ends early under a Content-Length that agrees."""
DELAY = 1.5  # seconds
HOP_BY_HOP = ("connection", "transfer-encoding", "content-length")


class FaultyProxy(ThreadingHTTPServer):
    """Forwards requests to an S3 server, each with the fault that a seeded generator draws for it."""

    daemon_threads = True

    def __init__(self, server: str, seed: int) -> None:
        """Listen on a free port; nothing is answered before `serving`."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(server).netloc
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.rates = RATES
        self.injected: Counter[str] = Counter()

    @property
    def url(self) -> str:
        """Return where the proxy listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def draw(self) -> tuple[str, bool]:
        """Return the fault of the next request, and whether the server does what it is asked all the same."""
        with self.lock:
            fault = self.random.choices([*self.rates, ""], [*self.rates.values(), 1 - sum(self.rates.values())])[0]
            return fault, self.random.random() < 0.5

    def count(self, fault: str) -> None:
        """Note a fault that was injected."""
        with self.lock:
            self.injected[fault] += 1

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""

    @contextmanager
    def serving(self) -> Iterator["FaultyProxy"]:
        """Answer requests in threads."""
        thread = threading.Thread(target=self.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault, reaches_server = self.server.draw()
        if fault == "delay":
            self.server.count(fault)
            time.sleep(DELAY)
        if fault not in ("error", "reset") or reaches_server:
            status, headers, content = self._ask(body)
        if fault == "reset":
            self._reset()
        elif fault == "error":
            self._fail()
        elif fault in ("cut", "lie") and self.command in ("GET", "HEAD") and status < 300:
            self._shorten(status, headers, content, fault)
        else:
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
            self._answer(status, headers, length, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _ask(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # the Host that was signed among them
            if name.lower() != "expect":
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers, content

    def _answer(self, status: int, headers: http.client.HTTPMessage, length: str, content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)

    def _fail(self) -> None:
        self.server.count("error")
        status, code = self.server.random.choice([(500, "InternalError"), (503, "SlowDown")])
        content = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self._answer(status, http.client.HTTPMessage(), str(len(content)), b"" if self.command == "HEAD" else content)

    def _reset(self) -> None:
        self.server.count("reset")
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()  # which would keep the socket open
        self.connection.close()
        self.close_connection = True

    def _shorten(self, status: int, headers: http.client.HTTPMessage, content: bytes, fault: str) -> None:
        length = int(headers.get("Content-Length", len(content)))
        if self.command == "HEAD" and fault == "cut":
            self._answer(status, headers, str(length), b"")
            return
        self.server.count(fault)
        self._answer(status, headers, str(length if fault == "cut" else length // 2), content[: len(content) // 2])
        self.close_connection = True
