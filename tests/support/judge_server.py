"""A small OpenAI-compatible server whose answers a test decides: real HTTP, every request counted."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tasks.config.judges import JudgeConfig

MODEL = "small-judge"


class Reply(NamedTuple):
    """What the server sends."""

    body: str | bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None
    """Content-Length, where it is not the body's."""
    drip: float = 0.0
    """Seconds after each byte."""


DROP = Reply("", status=0)
"""The connection is reset, and nothing sent."""
Behaviour = Callable[[dict[str, Any], int], "str | Reply"]
"""Called with a request's JSON and its number, from 0; a string is the text of an answer."""


def completion(text: Any, model: str = MODEL, prompt_tokens: int = 100, completion_tokens: int = 10, **choice) -> Reply:
    """Return a chat completion with a text as the content of its message."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    one = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, **choice}
    return Reply(json.dumps({"id": "x", "object": "chat.completion", "model": model, "choices": [one], "usage": usage}))


def asked_text(request: dict[str, Any]) -> str:
    """Return the last message of a request."""
    return request["messages"][-1]["content"]


class JudgeServer(ThreadingHTTPServer):
    """Answers as a behaviour says."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behaviour: Behaviour) -> None:
        """Listen on a free port; nothing is answered before `serving`."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour, self.lock = behaviour, threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.at_once = self.most_at_once = 0
        self.released = threading.Event()
        """Set at the end, so that nothing that hangs stays."""

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def config(self, **fields: Any) -> JudgeConfig:
        """Return the section of a judge that asks this server."""
        given = {"model": MODEL, "base_url": self.url, "api_key_variable": None, "max_answer_tokens": 100}
        return JudgeConfig.model_validate(given | fields)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: JudgeServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append(request)
            self.server.keys.append(self.headers.get("Authorization", ""))
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        reply = self.server.behaviour(request, number)
        with self.server.lock:
            self.server.at_once -= 1
        self._send(completion(reply) if isinstance(reply, str) else reply)

    def _send(self, reply: Reply) -> None:
        if reply is DROP:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if reply.length is None else reply.length))
        for name, value in reply.headers:
            self.send_header(name, value)
        self.end_headers()
        for start in range(0, len(body), 1 if reply.drip else max(1, len(body))):
            self.wfile.write(body[start : start + (1 if reply.drip else len(body))])
            if reply.drip and self.server.released.wait(reply.drip):
                return
        self.close_connection = reply.length is not None

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def judging(behaviour: Behaviour) -> Iterator[JudgeServer]:
    """Serve a judge."""
    server = JudgeServer(behaviour)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
