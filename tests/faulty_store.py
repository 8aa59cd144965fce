"""A proxy in front of an object store that answers 503, answers late, or drops connections."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
KINDS = ("503", "late", "dropped", "answer lost")


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Do not tell of clients that were killed."""


class FaultyStore:
    """The proxy. Threads of the server read its attributes.

    Args:
        behind: Address of the store.
        share: Share of the requests that have a fault, from the start.
        seed: Seed of the faults.

    Attributes:
        share: Share of the requests that have a fault.
        kinds: Their kinds, of `KINDS`.
        down: Whether every connection is dropped.
        count: How many faults there were, by kind.
        requests: How many requests there were.
        late_seconds: How late a late answer is.
        ignored: A header that is not passed on, as by a store that does not know it.
    """

    def __init__(self, behind: str, share: float = 0.0, seed: int = 0):
        self.behind = urlsplit(behind).netloc
        self.share, self.kinds, self.down = share, KINDS, False
        self.count: Counter[str] = Counter()
        self.requests = 0
        self.late_seconds = 0.3
        self.ignored = ""
        self._dice = random.Random(seed)
        self._server = _Quiet(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self) -> str:
        self.requests += 1
        if self.down:
            return "dropped"
        kind = self._dice.choice(self.kinds) if self._dice.random() < self.share else ""
        self.count[kind] += bool(kind)
        return kind

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kind = proxy.fault()
                if kind == "dropped":
                    self.close_connection = True
                    return
                if kind == "503":
                    self.tell(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
                    return
                if kind == "late":
                    time.sleep(proxy.late_seconds)
                try:
                    found = self.ask(body)
                except OSError:  # the server behind is being restarted
                    self.close_connection = True
                    return
                if kind == "answer lost":
                    self.close_connection = True
                    return
                self.tell(*found)

            def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                behind = http.client.HTTPConnection(proxy.behind, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() != proxy.ignored.lower()}
                behind.request(self.command, self.path, body, headers)
                answer = behind.getresponse()
                content, headers = answer.read(), dict(answer.getheaders())
                behind.close()
                return answer.status, headers, content

            def tell(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                length = str(len(content))
                for name, value in headers.items():
                    if name.lower() == "content-length" and self.command == "HEAD":
                        length = value
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "server", "date"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

            def log_message(self, *words: object) -> None:
                pass

        return Handler
