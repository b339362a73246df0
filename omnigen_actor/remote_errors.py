"""What an error of fsspec, aiohttp, botocore and their kin means: nothing there, may pass, or final.

Knows nothing of URIs, and imports none of those libraries: an error of a library that was never imported can't be here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524})
_TRANSIENT_S3_CODES = frozenset({"RequestTimeout", "IncompleteBody", "SlowDown", "XAmzContentSHA256Mismatch"})
_FINAL_ERRORS = (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError)
_STATUS_ATTRIBUTES = ("status", "status_code", "code")


def is_not_found(error: BaseException) -> bool:
    """Whether there is nothing at the URI."""
    return isinstance(error, FileNotFoundError) or http_status(error) in {404, 410}


def can_pass(error: BaseException) -> bool:
    """Whether another try may succeed: a timeout, a busy server, a broken connection, a short read."""
    if _s3_code(error) in _TRANSIENT_S3_CODES:
        return True
    status = http_status(error)
    if status is not None:
        return status in _TRANSIENT_STATUS
    if isinstance(error, _FINAL_ERRORS) or _is_final_in_its_library(error):
        return False
    return isinstance(error, OSError | EOFError) or _is_transport(error)


def _is_final_in_its_library(error: BaseException) -> bool:
    return _is_a(error, "aiohttp", "InvalidURL", "ClientConnectorCertificateError") or _is_a(
        error, "botocore.exceptions", "SSLError"
    )


def _is_transport(error: BaseException) -> bool:
    return (
        _is_a(error, "aiohttp", "ClientError")
        or _is_a(error, "botocore.exceptions", "HTTPClientError", "ConnectionError", "IncompleteReadError")
        or _is_a(error, "botocore.parsers", "ResponseParserError")
    )


def describe(error: BaseException) -> str:
    """What happened, on one line. May hold secrets of the URI: the caller redacts."""
    status, code = http_status(error), _s3_code(error)
    text = " ".join(str(error).split())[:300]
    if status is not None:
        return f"HTTP {status} {code or getattr(error, 'message', '')}".rstrip() + (f": {text}" if code else "")
    if isinstance(error, TimeoutError) and not text:
        return "timed out"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _causes(error: BaseException | None) -> list[BaseException]:
    """Up to those of aiohttp's parser, which call a short body a status 400."""
    chain: list[BaseException] = []
    while (
        error is not None and error not in chain and not _is_a(error, "aiohttp.http_exceptions", "HttpProcessingError")
    ):
        chain.append(error)
        error = error.__cause__
    return chain


def http_status(error: BaseException) -> int | None:
    """The HTTP status in an error of aiohttp, botocore, gcsfs, adlfs or huggingface_hub."""
    for link in _causes(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        status = next(_statuses(link, response), None)
        if status is not None:
            return status
    return None


def _statuses(error: BaseException, response: object) -> Iterator[int]:
    """Lazily: aiohttp warns whoever looks at `code` beside `status`."""
    yield from _as_status(response)
    for holder in (response, error):
        for name in _STATUS_ATTRIBUTES:
            yield from _as_status(getattr(holder, name, None))


def _as_status(value: object) -> list[int]:
    return [int(str(value))] if str(value).isdigit() and 400 <= int(str(value)) < 600 else []


def _s3_code(error: BaseException) -> str:
    for link in _causes(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _is_a(error: BaseException, module: str, *names: str) -> bool:
    """isinstance without an import: an error of a module that was never imported can't be here."""
    known = sys.modules.get(module)
    return known is not None and isinstance(error, tuple(getattr(known, name) for name in names))
