"""A local server that speaks the REST API of Gemini: its answer follows from the bytes of the video it was sent."""

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pipelines.stages.description_schema import DESCRIPTION_FIELDS, compact_json

INPUT_TOKENS, OUTPUT_TOKENS, THOUGHT_TOKENS = 1000, 200, 37


def description_of(video: bytes) -> str:
    """A description in the schema that only this video has."""
    digest = hashlib.sha256(video).digest() * 2
    values, k = {}, 0
    for field in DESCRIPTION_FIELDS:
        attributes = {}
        for name, allowed in field.attributes.items():
            is_range = isinstance(allowed[0], int)
            attributes[name] = allowed[0] + digest[k] % 50 if is_range else allowed[digest[k] % len(allowed)]
            k += 1
        values[field.name] = attributes.get("value", attributes)
    return compact_json(values)


def answer(text: str | None, finish: str = "STOP", **more) -> dict:
    content = {"role": "model", "parts": [{"text": text}]} if text is not None else {"role": "model"}
    usage = {
        "promptTokenCount": INPUT_TOKENS,
        "candidatesTokenCount": OUTPUT_TOKENS,
        "thoughtsTokenCount": THOUGHT_TOKENS,
    }
    return {"candidates": [{"content": content, "finishReason": finish}], "usageMetadata": usage, **more}


class Server:
    """What the tests ask of the server: ``plan(video, n)`` is called for the n-th request (from 1) about a video.

    It returns (status, body as a dictionary or bytes, headers), or None for the right answer; "drop" closes the
    connection, "half" sends half of the body.
    """

    def __init__(self):
        self.plan: Callable[[bytes, int], object] = lambda video, n: None
        self.lock, self.requests = threading.Lock(), []
        self.count: Counter = Counter()
        self.flying = self.most_flying = 0
        self.url = ""

    def about(self, video: bytes) -> int:
        return self.count[video]


@contextmanager
def gemini_server():
    """Yields a running Server; ``url`` is its address."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):  # noqa: N802 (the name that http.server calls)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            media = [part["inlineData"] for part in body["contents"][0]["parts"] if "inlineData" in part]
            video = base64.urlsafe_b64decode(media[0]["data"].replace("+", "-").replace("/", "_"))
            with state.lock:
                state.count[video] += 1
                n = state.count[video]
                state.requests.append({"path": self.path, "headers": dict(self.headers), "body": body, "media": media})
                state.flying += 1
                state.most_flying = max(state.most_flying, state.flying)
            try:
                with suppress(BrokenPipeError, ConnectionResetError):  # a client that waits no longer
                    self.reply(state.plan(video, n), video)
            finally:
                with state.lock:
                    state.flying -= 1

        def reply(self, planned, video):
            if planned == "drop":
                self.close_connection = True
                return
            half = planned == "half"
            status, body, headers = (200, answer(description_of(video)), {}) if planned in (None, "half") else planned
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if half else data)
            self.close_connection = half

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
