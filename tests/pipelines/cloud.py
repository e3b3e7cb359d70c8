"""A Cloud Storage to test against, over real connections: an emulator behind a front that breaks things.

The front adds what the emulator lacks (generation preconditions, pinned generations, pages of a listing) and, when
told to, fails: before or after a request took effect, in the middle of a body, with damaged bytes, or by silence.
"""

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

from gcp_storage_emulator.server import create_server

BUCKET = "corpus"
PAGE = 5  # names on a page of a listing

# What a fault does to a request: see _Handler.serve.
BEFORE, AFTER, RESET, CUT, SHORT, DAMAGED, SILENT, STALL = (
    "503 before",
    "503 after",
    "reset in the request",
    "cut answer",
    "answer said to be shorter",
    "damaged bytes",
    "silent",
    "stalls in the request",
)
READ_FAULTS = (BEFORE, CUT, SHORT, DAMAGED, SILENT)
WRITE_FAULTS = (BEFORE, AFTER, RESET, DAMAGED, SILENT)


@dataclass
class Cloud:
    """The front's state: what it was asked, and what it shall do to which of the next requests."""

    port: int = 0
    emulator: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)  # (method or "media", fault), used up in order
    rate: float = 0.0  # share of other requests that get a random fault
    silence: float = 1.5  # seconds
    page: int = PAGE
    requests: list[str] = field(default_factory=list)
    injected: list[tuple[str, str]] = field(default_factory=list)
    writes: dict[str, int] = field(default_factory=dict)  # object -> how often it was written
    sessions: dict[str, str] = field(default_factory=dict)  # upload in pieces -> object
    halves: list[str] = field(default_factory=list)  # requests whose sender went away in the middle
    released: threading.Event = field(default_factory=threading.Event)  # ends a stall
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fault_for(self, kind: str) -> str | None:
        with self.lock:
            for index, (what, fault) in enumerate(self.faults):
                if what == kind:
                    self.injected.append(self.faults.pop(index))
                    return fault
            if self.rate and self.dice.random() < self.rate:
                fault = self.dice.choice(READ_FAULTS if kind in ("GET", "media") else WRITE_FAULTS)
                self.injected.append((kind, fault))
                return fault
        return None

    def forward(self, method: str, path: str, headers: dict, body: bytes) -> tuple[int, dict, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.emulator, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, {**headers, "Host": f"127.0.0.1:{self.port}"})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def generation(self, bucket: str, name: str) -> str:
        from urllib.parse import quote

        status, _, body = self.forward("GET", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}", {}, b"")
        return json.loads(body)["generation"] if status == 200 else "0"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud: Cloud

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.serve()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def handle(self) -> None:
        # A client that hangs up in the middle is the subject here, and no news.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def serve(self) -> None:
        cloud, url = self.cloud, urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        media = self.command == "GET" and (query.get("alt") == "media" or not url.path.startswith("/storage/"))
        kind = "media" if media else self.command
        length = int(self.headers.get("Content-Length") or 0)
        fault = None
        if not url.path.endswith(f"/b/{BUCKET}"):  # the library looks at the bucket in the background, once
            cloud.requests.append(f"{kind} {url.path}")
            fault = cloud.fault_for(kind)
        if fault == RESET:
            self.rfile.read(length // 2)
            return self.drop()
        body = self.rfile.read(min(length, 2**16))
        if fault == STALL:
            cloud.released.wait(100)
        body += self.rfile.read(length - len(body))
        if len(body) < length:  # who sent it is gone: a service does not take half a body
            cloud.halves.append(f"{kind} {url.path}")
            return self.drop()
        if fault == SILENT:
            time.sleep(cloud.silence)
            return self.drop()
        if fault == BEFORE:
            return self.answer(503, {}, b"not now")
        if fault == DAMAGED and body:
            body = _flip(body)
        status, headers, data = self.apply(url.path, query, body)
        if fault == AFTER:
            return self.answer(503, {}, b"done, but you shall not know")
        if fault == DAMAGED and media:
            data = _flip(data)
        if fault == SHORT:
            data = data[: len(data) // 2]
        self.answer(status, headers, data, cut=fault == CUT)

    def apply(self, path: str, query: dict, body: bytes) -> tuple[int, dict, bytes]:
        """Sends a request on to the emulator, with the rules that it lacks; one at a time, as it serves them."""
        cloud = self.cloud
        headers = {key: value for key, value in self.headers.items() if key.lower() not in ("host", "accept-encoding")}
        with cloud.lock:
            bucket, name = _object_of(path, query, body)
            name = cloud.sessions.get(query.get("upload_id", ""), name)
            final = "upload_id" not in query or not self.headers.get("Content-Range", "").endswith("/*")
            now = cloud.generation(bucket, name) if name else "0"
            if name and query.get("ifGenerationMatch", now) != now and final:
                return 412, {}, b'{"error": {"code": 412, "message": "a precondition does not hold"}}'
            if name and self.command == "GET" and query.get("generation", now) != now:
                return 404, {}, b'{"error": {"code": 404, "message": "No such object"}}'
            status, answer, data = cloud.forward(self.command, self.path, headers, body)
            if "upload_id=" in answer.get("Location", ""):
                cloud.sessions[unquote_plus(answer["Location"].rsplit("upload_id=", 1)[1])] = name
            if name and self.command in ("POST", "PUT") and cloud.generation(bucket, name) != now:
                key = f"gs://{bucket}/{name}"
                cloud.writes[key] = cloud.writes.get(key, 0) + 1
        if status == 200 and self.command == "GET" and path.endswith("/o"):
            data = _page(json.loads(data), query, cloud.page)
        return status, answer, data

    def answer(self, status: int, headers: dict, data: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() not in ("content-length", "connection", "server", "date"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.drop()

    def drop(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _flip(data: bytes) -> bytes:
    """One byte in the middle becomes another one; a JSON head or a boundary stays what it is."""
    if len(data) < 8:
        return data
    middle = len(data) * 2 // 3
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _object_of(path: str, query: dict, body: bytes) -> tuple[str, str]:
    """The bucket and object that a request is about; no name for a listing."""
    parts = path.split("/")
    bucket = parts[parts.index("b") + 1] if "b" in parts else parts[1]
    if "/copyTo/b/" in path:
        bucket, _, name = path.split("/copyTo/b/", 1)[1].partition("/o/")
        return bucket, unquote(name)
    if "/o/" in path:
        return bucket, unquote(path.split("/o/", 1)[1])
    if "b" not in parts:
        return bucket, unquote("/".join(parts[2:]))
    if "name" in query:
        return bucket, query["name"]
    if path.startswith("/upload/"):
        start = body.find(b'{"')
        try:
            return bucket, json.JSONDecoder().raw_decode(body[start:].decode("latin-1"))[0].get("name", "")
        except ValueError:
            return bucket, ""
    return bucket, ""


def _page(found: dict, query: dict, size: int) -> bytes:
    size = min(size, int(query.get("maxResults", size)))
    start = int(query.get("pageToken", 0))
    items = found.get("items", [])
    page = {**found, "items": items[start : start + size]}
    if start + size < len(items):
        page["nextPageToken"] = str(start + size)
    return json.dumps(page).encode()


@contextlib.contextmanager
def running_cloud() -> Iterator[Cloud]:
    """A Cloud Storage with one empty bucket, on a port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    emulator = create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    emulator._api.daemon = True
    emulator.start()
    cloud = Cloud(emulator=port)
    handler = type("Handler", (_Handler,), {"cloud": cloud})
    front = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    front.daemon_threads = True
    # A small window: else the kernels in between take the whole of a stalled body, and deliver it for a dead sender.
    front.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
    cloud.port = front.server_address[1]
    thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        front.shutdown()
        front.server_close()
        emulator.stop()
