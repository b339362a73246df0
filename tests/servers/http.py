"""A web server over a folder that misbehaves on demand.

/<file>               the file, without ranges
/status/<code>        that status, with a short body
/flaky/<n>/<file>     503 to the first n requests of this path, then the file
/reset/<n>/<file>     as flaky, but the connection is reset
/truncated/<file>     announces the file's whole length and sends half of it
/trickle              one byte every 50 ms, without end
/endless              zeros as fast as they are taken, without end
"""

from __future__ import annotations

import socket
import struct
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class HttpServer:
    """Serves `folder` at `base_url` from threads of this process; `requests` has the paths asked. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.stopping = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.base_url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        server = self._server = _Server(self)
        self.base_url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """End the answers in flight too."""
        self.stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True

    def __init__(self, owner: HttpServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is what some tests are about."""


class _Handler(SimpleHTTPRequestHandler):
    server: _Server

    def __init__(self, request: Any, client_address: Any, server: _Server) -> None:
        super().__init__(request, client_address, server, directory=str(server.owner.folder))

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.server.owner.requests.append(self.path)
        _, name, *rest = self.path.split("?")[0].split("/", 3)
        special = getattr(self, f"answer_{name}", None)
        if special is None:
            super().do_GET()
        else:
            special(*rest)

    def answer_status(self, code: str) -> None:
        self.announce(int(code), 4)
        self.wfile.write(b"body")

    def answer_flaky(self, num_failures: str, name: str) -> None:
        if self.fails(num_failures):
            self.send_error(503)
        else:
            self.serve_file(name)

    def answer_reset(self, num_failures: str, name: str) -> None:
        if self.fails(num_failures):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.connection.close()
        else:
            self.serve_file(name)

    def answer_truncated(self, name: str) -> None:
        data = (self.server.owner.folder / name).read_bytes()
        self.announce(200, len(data))
        self.wfile.write(data[: len(data) // 2])

    def answer_trickle(self, *_: str) -> None:
        self.announce(200, 1 << 30)
        while not self.server.owner.stopping.wait(0.05):
            self.wfile.write(b".")

    def answer_endless(self, *_: str) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.owner.stopping.is_set():
            self.wfile.write(bytes(1 << 16))

    def fails(self, num_failures: str) -> bool:
        return self.server.owner.requests.count(self.path) <= int(num_failures)

    def announce(self, code: int, size_bytes: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(size_bytes))
        self.end_headers()

    def serve_file(self, name: str) -> None:
        self.path = "/" + name
        super().do_GET()
