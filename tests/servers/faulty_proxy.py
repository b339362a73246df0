"""A proxy in front of an HTTP server that breaks a share of all requests. Knows nothing of S3.

Each connection carries one request. What breaks is drawn from a seed: an answer of 503, a reset before or after the
server has done its work, silence, an answer that is cut short.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from random import Random
from typing import Self

BUSY, RESET, LATE_RESET, STALL, CUT = "503", "reset before", "reset after", "stall", "cut short"
KINDS = (BUSY, RESET, LATE_RESET, STALL, CUT)

_BUSY_ANSWER = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_REFUSED_ANSWER = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEAD_END = b"\r\n\r\n"


class FaultyProxy:
    """Listens at ``endpoint_url``, in a thread of its own. A context manager.

    ``share`` of the requests break; ``stall_s``: how long a stalled one says nothing before it is reset. ``broken``
    counts them by kind, ``num_requests`` all.
    """

    def __init__(self, upstream_port: int, *, share: float = 0.2, stall_s: float = 2.0, seed: int = 0) -> None:
        self.num_requests = 0
        self.broken: Counter[str] = Counter()
        self.refuses_writes = False
        """Whether PUT, POST and DELETE are answered with 403."""
        self._upstream_port, self._share, self._stall_s = upstream_port, share, stall_s
        self._rng = Random(seed)
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="faulty-proxy", daemon=True)
        self._port = 0

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_up.wait(10), "the proxy did not come up"
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._answer, "127.0.0.1", 0))
        self._port = server.sockets[0].getsockname()[1]
        self._is_up.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            request = await _read_request(reader, writer)
            self.num_requests += 1
            if self.refuses_writes and request.partition(b" ")[0] in {b"PUT", b"POST", b"DELETE"}:
                writer.write(_REFUSED_ANSWER)
                await writer.drain()
                writer.close()
                return
            fault = self._rng.choice(KINDS) if self._rng.random() < self._share else None
            if fault:
                self.broken[fault] += 1
            await self._do(fault, request, writer)
        writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def _do(self, fault: str | None, request: bytes, writer: asyncio.StreamWriter) -> None:
        if fault == BUSY:
            writer.write(_BUSY_ANSWER)
        elif fault == RESET:
            writer.transport.abort()
        elif fault == STALL:
            await asyncio.sleep(self._stall_s)
            writer.transport.abort()
        else:
            answer = await self._ask(request)
            if fault == LATE_RESET:
                writer.transport.abort()
            elif fault == CUT:
                writer.write(answer[: len(answer) // 2])
                await writer.drain()
                writer.transport.abort()
            else:
                writer.write(answer)
        if not writer.transport.is_closing():
            await writer.drain()

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """One whole request, told to close its connection, so that the end of the answer is the end of the stream."""
    head = await reader.readuntil(_HEAD_END)
    first, *fields = head[: -len(_HEAD_END)].split(b"\r\n")
    named = {name.strip().lower(): value.strip() for name, _, value in (field.partition(b":") for field in fields)}
    if named.get(b"expect", b"").lower() == b"100-continue":
        writer.write(_CONTINUE)
    body = await _read_chunks(reader) if b"chunked" in named.get(b"transfer-encoding", b"") else b""
    body = body or await reader.readexactly(int(named.get(b"content-length", b"0")))
    kept = [field for field in fields if field.partition(b":")[0].strip().lower() not in {b"connection", b"expect"}]
    return b"\r\n".join([first, *kept, b"Connection: close"]) + _HEAD_END + body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body as it came, to its end."""
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
        body += size + chunk
        if size.split(b";")[0].strip() == b"0":
            return body
