"""Names of files: local paths and URIs of any scheme, as strings. Knows nothing of reading or writing."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

from omnigen_actor.remote import check_scheme
from omnigen_actor.remote_http import HTTP_SCHEMES

# Two characters at least: `C:\x` names a drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_CHAIN = re.compile(r"::(?=[a-z][a-z0-9+.-]*(?:://|::|$))")
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_SEPARATORS = re.compile(r"[/:@?#&=;,]")
_LOCAL_SCHEMES = frozenset({"", "file", "local"})


def resolve(reference: str, base_folder: str) -> str:
    """A manifest's reference as an absolute URI or local path; a relative one is joined to `base_folder`.

    `..` is resolved in local paths and in relative references. Raises ValueError for an empty reference, a scheme that
    fsspec does not know or whose package is missing, and a reference that leaves the bucket or host of `base_folder`.
    """
    if not reference.strip() or "\0" in reference:
        raise ValueError(f"the reference {reference!r} is empty or holds a NUL: name a file by its path or URI")
    scheme = _scheme(reference)
    if scheme not in _LOCAL_SCHEMES:
        _check_remote(scheme, reference)
        return scheme + reference[len(scheme) :]
    if scheme or reference.startswith("/") or is_local(base_folder):
        return os.path.normpath(os.path.join(local_path(base_folder).absolute(), local_path(reference)))  # noqa: PTH118
    return _join_normalised(base_folder, reference)


def join(base: str, *parts: str) -> str:
    """`base` (a folder: path or URI) with `parts` below it. A query of an http base is dropped."""
    base = _without_query(base)
    for part in parts:
        if part := part.strip("/"):
            base = base + part if base.endswith("/") else f"{base}/{part}"
    return base


def parent(uri: str) -> str:
    """The folder that holds `uri`. A bucket or host is its own parent; "." for a bare file name."""
    root, mark, path = _without_query(uri).rpartition("://")
    path = path.rstrip("/")
    if is_local(uri):
        return f"{root}{mark}{posixpath.dirname(path or '/') or '.'}"
    folder, slash, name = path.rpartition("/")
    return f"{root}{mark}{folder if slash or root == 'memory' else name}"  # memory:// has no bucket


def is_local(uri: str) -> bool:
    """Whether `uri` is a path of this machine: a plain path or file://."""
    return _scheme(uri) in _LOCAL_SCHEMES


def redact(uri: str) -> str:
    """`uri` without userinfo, query and fragment, fit for logs and records. Local paths stay as they are."""
    if is_local(uri):
        return uri
    return "::".join(_redact_link(link) for link in _CHAIN.split(uri))


def local_path(uri: str) -> Path:
    """The path of a local `uri`: file:// is percent-decoded (`as_uri` of pathlib encodes), a plain path is not."""
    if not _scheme(uri):
        return Path(uri)
    return Path(unquote(re.sub(r"^[A-Za-z]+:(//(localhost(?=/))?)?", "", uri)))


def scrub(text: str, uri: str) -> str:
    """`text` of a foreign error without what `redact` takes from `uri`, or from any other URL in it."""
    if is_local(uri):
        return text
    redacted = redact(uri)
    text = _URL_IN_TEXT.sub(lambda match: redact(match[0]), text.replace(uri, redacted))
    for word in set(_SEPARATORS.split(uri)) - set(_SEPARATORS.split(redacted)):
        if len(word) >= 4:
            text = text.replace(word, "…").replace(unquote(word), "…")
    return text


def _scheme(uri: str) -> str:
    match = _SCHEME.match(uri)
    return match[1].lower() if match else ""


def _check_remote(scheme: str, reference: str) -> None:
    check_scheme(scheme)
    rest = reference[len(scheme) + 1 :]
    if scheme == "data" or rest.startswith(":"):
        return
    if not rest.startswith("//") or (scheme != "memory" and not rest[2:].split("/")[0]):
        raise ValueError(f"{redact(reference)}: a bucket or host is missing, write {scheme}://NAME/…")


def _join_normalised(base: str, reference: str) -> str:
    root, mark, folder = join(base).partition("://")
    host, _, key = folder.partition("/")
    key = posixpath.normpath(posixpath.join(key.strip("/"), reference))
    if key.startswith(".."):
        raise ValueError(f"the reference {reference!r} leaves {redact(root + mark + host)}: name the file by its URI")
    return f"{root}{mark}{host}/{key}"


def _redact_link(link: str) -> str:
    if link.startswith("data:"):
        return link.split(",", 1)[0][:60] + ",…"
    scheme, mark, rest = re.split(r"(:(?://)?|$)", link, maxsplit=1)
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    authority = authority.rpartition("@")[2]
    if not re.fullmatch(r"[^:\[\]]*(:\d*)?|\[[0-9A-Fa-f:.]+\](:\d*)?", authority):
        return f"{scheme}{mark}…"  # a password with an unescaped `/`, `?` or `#` in it: nothing here is sure
    return f"{scheme}{mark}{authority}{slash}{path}"


def _without_query(uri: str) -> str:
    return re.split(r"[?#]", uri, maxsplit=1)[0] if _scheme(uri) in HTTP_SCHEMES else uri
