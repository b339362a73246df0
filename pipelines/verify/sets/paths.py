"""A path that a row names -> a path below the folder of images, or what is wrong with it. Reads no images."""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from omnigen_actor import uri
from pipelines.verify.findings import FindingKind
from pipelines.verify.sets.member import Fault

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_MAX_SEARCHES = 50
_LONGEST_SHOWN = 100


class Resolved(NamedTuple):
    """``path``: below the folder, where there is a file to look at. ``fault``: what is wrong with what was written."""

    path: str | None
    fault: Fault | None = None


def fault_of(text: str) -> Fault | None:
    """What is wrong with a path wherever it is to start."""
    shown = repr(text[:_LONGEST_SHOWN])
    if not text.strip() or "\0" in text:
        return Fault(FindingKind.BAD_PATH, f"{shown}: no path")
    if text.startswith("/") or _DRIVE.match(text):
        return Fault(FindingKind.ABSOLUTE_PATH, f"{shown}: a place of one machine; write it relative to the set")
    if _SCHEME.match(text):
        return Fault(FindingKind.BAD_PATH, f"{shown}: a URL; the set does not have this image")
    if "\\" in text:
        return Fault(FindingKind.BAD_PATH, f"{shown}: backslashes, which only Windows takes for folders")
    if ".." in text.split("/"):
        return Fault(FindingKind.PATH_OUTSIDE, f"{shown}: it has `..` and may leave the set")
    return None


class Paths:
    """Resolves paths below ``root``. ``prefix``: what all of them begin with, and which is not a part of the set.

    An absolute path is a fault, and yet it is looked up: below ``root`` may lie what its end names.
    """

    def __init__(self, root: str, prefix: str = "") -> None:
        self._root = root
        self._prefix = prefix
        self._foreign: list[str] = []
        self._num_searches = 0

    def resolve(self, text: str) -> Resolved:
        """Raises UriFailed where the folder can't be read."""
        if self._prefix and text.startswith(self._prefix):
            text = text[len(self._prefix) :]
        fault = fault_of(text)
        if fault is None:
            return Resolved(posixpath.normpath(text))
        return Resolved(self._search(text) if fault.kind is FindingKind.ABSOLUTE_PATH else None, fault)

    def _search(self, text: str) -> str | None:
        known = next((one for one in self._foreign if text.startswith(one)), None)
        if known is not None:
            rest = text[len(known) :]
            return None if fault_of(rest) else posixpath.normpath(rest)
        parts = text.replace("\\", "/").split("/")
        if ".." in parts or self._num_searches >= _MAX_SEARCHES:
            return None
        self._num_searches += 1
        for number in range(1, len(parts)):
            rest = "/".join(parts[number:])
            if rest and not fault_of(rest) and uri.exists(uri.join(self._root, rest)):
                self._foreign.append(text[: len(text) - len(rest)])
                return posixpath.normpath(rest)
        return None
