"""Reading over http(s) with aiohttp, on fsspec's loop and session. Knows nothing of retries.

fsspec's own http file system asks for ranges, which many servers ignore, and turns a 503 into "not found".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HTTP_SCHEMES = frozenset({"http", "https"})
CONNECT_TIMEOUT_S = 10
SILENCE_TIMEOUT_S = 20
_CHUNK_BYTES = 256 << 10


def is_http(uri: str) -> bool:
    """Whether `uri` is read over http(s)."""
    return uri.partition("://")[0].lower() in HTTP_SCHEMES


def run(uri: str, timeout_s: float | None, operation: Callable[[Any, Any], Any]) -> None:
    """Run `operation(session, url)`, a coroutine, on fsspec's loop."""
    import yarl
    from fsspec import filesystem
    from fsspec.asyn import sync

    http = filesystem("http", client_kwargs={"trust_env": True})
    # A URL that is encoded already stays as it is: a signature may cover its very bytes.
    url = yarl.URL(uri, encoded=bool(re.fullmatch(r"(?:[!#$&-;=?-\[\]_a-z~]|%[0-9A-Fa-f]{2})+", uri)))

    async def call() -> None:
        await operation(await http.set_session(), url)

    sync(http.loop, call, timeout=timeout_s)


def _request_options() -> dict[str, Any]:
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S)
    return {"timeout": timeout, "headers": {"Accept-Encoding": "identity", "User-Agent": "omnigen-batch"}}


async def download(session: Any, url: Any, body: Any, max_bytes: int | None) -> None:
    """GET into `body`, `max_bytes` at most. aiohttp raises where the body is shorter than announced."""
    body.seek(0)
    body.truncate()
    async with session.get(url, **_request_options()) as response:
        response.raise_for_status()
        while max_bytes is None or body.tell() < max_bytes:
            left_bytes = _CHUNK_BYTES if max_bytes is None else min(_CHUNK_BYTES, max_bytes - body.tell())
            chunk = await response.content.read(left_bytes)
            if not chunk:
                return
            body.write(chunk)


async def probe(session: Any, url: Any) -> None:
    """GET without the body: a presigned URL is signed for GET alone, and many servers know no HEAD."""
    async with session.get(url, **_request_options()) as response:
        response.raise_for_status()
