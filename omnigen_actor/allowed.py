"""Which references an untrusted row may have. Knows no rows, and opens nothing.

A row may name what lies below a place that the person who runs the job has named, data of its own (`data:`), and
public hosts over http(s). Whether a name is of a public host shows at the connection: `remote_http` sees to that.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from omnigen_actor.addresses import Refused, is_public, literal
from omnigen_actor.remote_http import is_http, parse_url
from omnigen_actor.uri_names import is_local, join, local_path, redact

if TYPE_CHECKING:
    from collections.abc import Iterable

# What may wrap another link of a chain: fsspec's other wrappers read references from files, or keep copies.
_ARCHIVES = frozenset({"zip", "tar"})
_WHOLE_NAMES = ("s3://", "s3a://")  # a `::` in these is part of the name
_SECRET = re.compile(r"://[^/]*:[^/]*@|https?://[^/]*[@?#]|https?://.*[?#]")


@dataclass(frozen=True, slots=True)
class Allowed:
    """``places``: absolute local folders and URIs; what lies below one of them may be read."""

    places: tuple[str, ...] = ()

    def check(self, reference: str) -> None:
        """Raises Refused where an absolute reference may not be read, as far as that shows without a connection."""
        if is_local(reference):
            self.real_path(reference)
        elif is_http(reference):
            self.is_named(parse_url(reference))
        elif "::" in reference and not reference.startswith(_WHOLE_NAMES):
            self._check_chain(reference.split("::"))
        elif not reference.startswith("data:"):
            self._check_object(reference)

    def real_path(self, reference: str) -> Path:
        """The file that a local reference leads to, symbolic links followed. Raises Refused, ValueError for a NUL."""
        path = _real(reference)
        if not any(_is_below(path, _real(place)) for place in self.places if is_local(place)):
            leads = "" if path == str(local_path(reference)) else f" (it leads to {path})"
            raise Refused(f"it is outside of the folders that rows may read{leads}", os.path.dirname(path))  # noqa: PTH120
        return Path(path)

    def is_named(self, url: Any) -> bool:
        """Whether a http(s) URL (yarl's) is at a place that was named, so that its host may have any address.

        Raises Refused where it is not and its host is known not to be public.
        """
        if any(_is_at(url, place) for place in self.places if is_http(place)):
            return True
        host = url.host or ""
        address = literal(host)
        is_loopback = host.rstrip(".").lower().rpartition(".")[2] == "localhost"
        if is_loopback or (address is not None and not is_public(address)):
            raise Refused(f"{host} is no public host", origin(str(url)))
        return False

    def _check_object(self, reference: str) -> None:
        name = _plain(reference)
        if not any(_is_below(name, _plain(place)) for place in self.places if not is_local(place)):
            raise Refused("it is outside of the places that rows may read", origin(reference))
        if _has_dots(name):
            raise Refused("it has `..` in its path")

    def _check_chain(self, links: list[str]) -> None:
        *wrappers, inner = links
        if is_http(inner) or any(link.partition("://")[0] not in _ARCHIVES for link in wrappers):
            raise Refused("of chains, rows may have files in zip and tar archives alone, and not over http")
        self.check(inner)


def allow(named: Iterable[str], own: Iterable[str] = ()) -> Allowed:
    """What a run allows: the places ``named`` for it and its ``own`` (manifest, store); all are absolute.

    Raises ValueError for a named place with a password or query: settings are kept in the store.
    """
    named = tuple(named)
    if any(_SECRET.search(place) for place in named if not is_local(place)):
        raise ValueError("leave out password and query: a place is named by its scheme, host and path")
    return Allowed((*named, *(redact(place) if is_http(place) else place for place in own)))


def origin(uri: str) -> str:
    """The scheme and host, or bucket, of a URI; a local path stays as it is."""
    if is_local(uri):
        return uri
    scheme, mark, rest = redact(uri).partition("://")
    return f"{scheme}{mark}{rest.partition('/')[0]}"


def _real(reference: str) -> str:
    """POSIX gives a meaning of its own to two slashes at the start; Linux does not."""
    return re.sub("^//+", "/", os.path.realpath(local_path(reference)))


def _is_below(name: str, root: str) -> bool:
    return name == root or name.startswith(root.rstrip("/") + "/")


def _plain(uri: str) -> str:
    return re.sub("^s3a:", "s3:", join(uri))


def _has_dots(path: str) -> bool:
    """Whether a path has `..`, however often it is percent-encoded."""
    while (decoded := unquote(path)) != path:
        path = decoded
    return ".." in re.split(r"[/\\]", path)


def _is_at(url: Any, place: str) -> bool:
    site = _site(place)
    if url.origin() != site.origin():
        return False
    path = site.path.rstrip("/")
    return not path or (_is_below(url.path, path) and not _has_dots(url.raw_path))


@lru_cache(maxsize=256)
def _site(place: str) -> Any:
    return parse_url(place)
