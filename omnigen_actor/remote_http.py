"""Reading over http(s) with aiohttp, on fsspec's loop and sessions. Knows nothing of retries, nor of what is allowed.

fsspec's own http file system asks for ranges, which many servers ignore, and turns a 503 into "not found".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.request import getproxies, proxy_bypass

from omnigen_actor.addresses import Refused, is_public, literal

HTTP_SCHEMES = frozenset({"http", "https"})
CONNECT_TIMEOUT_S = 10
SILENCE_TIMEOUT_S = 20
MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES = 256 << 10

Guard = Callable[[Any], bool]
"""A yarl URL -> whether its host may have any address; else it must have a public one. Raises Refused."""


def is_http(uri: str) -> bool:
    """Whether `uri` is read over http(s)."""
    return uri.partition("://")[0].lower() in HTTP_SCHEMES


def parse_url(uri: str) -> Any:
    """`uri` as yarl reads it, which is what a request goes by. Raises ValueError.

    A URL that is encoded already stays as it is: a signature may cover its very bytes.
    """
    import yarl

    return yarl.URL(uri, encoded=bool(re.fullmatch(r"(?:[!#$&-;=?-\[\]_a-z~]|%[0-9A-Fa-f]{2})+", uri)))


def run(uri: str, timeout_s: float | None, operation: Callable[[Any], Any], guard: Guard | None = None) -> None:
    """Run `operation(response)`, a coroutine, on fsspec's loop. Raises what aiohttp raises, and Refused of `guard`."""
    from fsspec import filesystem
    from fsspec.asyn import sync

    async def call() -> None:
        async with _get(parse_url(uri), guard) as response:
            response.raise_for_status()
            await operation(response)

    sync(filesystem("http").loop, call, timeout=timeout_s)


async def download(response: Any, body: Any, max_bytes: int | None) -> None:
    """The response into `body`, `max_bytes` at most. aiohttp raises where it is shorter than announced."""
    body.seek(0)
    body.truncate()
    while max_bytes is None or body.tell() < max_bytes:
        left_bytes = _CHUNK_BYTES if max_bytes is None else min(_CHUNK_BYTES, max_bytes - body.tell())
        chunk = await response.content.read(left_bytes)
        if not chunk:
            return
        body.write(chunk)


async def probe(response: Any) -> None:
    """GET without the body: a presigned URL is signed for GET alone, and many servers know no HEAD."""


@contextlib.asynccontextmanager
async def _get(url: Any, guard: Guard | None) -> AsyncIterator[Any]:
    """The answer to a GET at the end of its redirects: each is judged as the first URL was."""
    for _ in range(MAX_REDIRECTS + 1):
        async with _ask(url, guard) as response:
            target = _target(response, url)
            if target is None:
                yield response
                return
        if target.scheme not in HTTP_SCHEMES:
            raise (ValueError if guard is None else Refused)("it redirects to something that is not http")
        url = target
    raise ValueError(f"more than {MAX_REDIRECTS} redirects")


@contextlib.asynccontextmanager
async def _ask(url: Any, guard: Guard | None) -> AsyncIterator[Any]:
    """One request. A refused one says which host to allow."""
    is_free = guard is None or guard(url)
    proxy = None if is_free else _proxy(url)
    session = await (_open_session() if is_free else _proxied_session() if proxy else _public_session())
    try:
        async with session.get(url, proxy=proxy, **_request_options()) as response:
            yield response
    except Refused as refused:
        raise refused if refused.place else Refused(refused.reason, str(url.origin())) from None


def _request_options() -> dict[str, Any]:
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S)
    headers = {"Accept-Encoding": "identity", "User-Agent": "omnigen-batch"}
    return {"timeout": timeout, "headers": headers, "allow_redirects": False}


def _target(response: Any, url: Any) -> Any:
    """Where a redirect leads, or None. A password in `url` goes on to the same scheme, host and port alone."""
    location = response.headers.get("Location")
    if response.status not in _REDIRECTS or not location:
        return None
    target = url.join(parse_url(location))
    is_home = target.scheme in HTTP_SCHEMES and target.origin() == url.origin()
    if is_home and url.user is not None and target.user is None:
        target = target.with_user(url.user).with_password(url.password)
    return target


# --- sessions: fsspec keeps one of each kind, and closes it ---


def _open_session() -> Any:
    """Any address, with what the environment says of proxies and passwords (netrc)."""
    return _session(client_kwargs={"trust_env": True})


def _proxied_session() -> Any:
    """Any address, and nothing of the environment: to proxies, which look hosts up themselves."""
    return _session()


def _public_session() -> Any:
    """Public addresses alone, and no password of the environment."""
    return _session(get_client=_public_client)


async def _session(**options: Any) -> Any:
    from fsspec import filesystem

    return await filesystem("http", **options).set_session()


async def _public_client(loop: Any) -> Any:
    from aiohttp import ClientSession, TCPConnector

    return ClientSession(connector=TCPConnector(resolver=PublicResolver()), loop=loop)


class PublicResolver:
    """A host's public addresses. The connection goes to one of these, so no second look-up can give another."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        """Raises Refused for a host without one, OSError for a host that is not known."""
        from aiohttp.resolver import ThreadedResolver

        found = await ThreadedResolver().resolve(host, port, family)
        public = [entry for entry in found if (address := literal(entry["host"])) and is_public(address)]
        if not public:
            raise Refused(f"{host} is no public host: its address is {', '.join(entry['host'] for entry in found)}")
        return list(public)

    async def close(self) -> None:
        """Nothing is kept."""


def _proxy(url: Any) -> str | None:
    """The environment's proxy for a URL."""
    return None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)
