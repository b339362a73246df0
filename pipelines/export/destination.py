"""The folder of an export: whose it is, what is done of it, and its marker, which is written last. Knows no formats.

plan/plan.json              which plan is under way
plan/shard-000000.parquet   the rows of a shard
plan/report-000000.json     a shard that is done: its files and counts
export.json                 the export is whole
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from omnigen_actor import uri
from omnigen_actor.errors import OutputError
from pipelines.export.format import SCRATCH, File

MARKER = "export.json"
_PLAN = f"{SCRATCH}/plan.json"
_MAX_BYTES = 2**32


@dataclass(frozen=True, slots=True)
class Destination:
    """DEST, absolute."""

    root: str

    def at(self, path: str) -> str:
        """A path of the export as a URI."""
        return uri.join(self.root, path)

    def marker(self) -> dict[str, Any] | None:
        """What ``export.json`` says; None where no export is whole. Raises OutputError."""
        return self._json(MARKER)

    def claim(self, digest: str, *, replace: bool) -> bool:
        """Take the folder for a plan; whether there is anything to do.

        Raises OutputError where it holds another export, unless ``replace``, and where it holds anything else.
        """
        marker, plan = self.marker(), self._json(_PLAN)
        there = marker or plan
        if there is None:
            self._check_empty()
        elif replace:
            uri.remove_folder(self.root)
            marker = plan = None
        elif there.get("plan") != digest:
            raise OutputError(
                f"{uri.redact(self.root)!r} holds an export of other images, scores or settings: choose another "
                "folder, or remove what is there with --replace"
            )
        if marker is not None:
            if plan is not None:  # all but its end was there
                self.sweep()
            return False
        if plan is None:
            uri.write_bytes(self.at(_PLAN), (json.dumps({"plan": digest}) + "\n").encode())
        return True

    def scratch(self) -> set[str]:
        """The paths of all files of the plan."""
        prefix = self.at("")
        return {file.removeprefix(prefix).lstrip("/") for file in uri.list_files(self.at(SCRATCH))}

    def sweep(self) -> None:
        """Remove the plan."""
        uri.remove_folder(self.at(SCRATCH))

    def write(self, file: File) -> tuple[str, str, int]:
        """Write a file; its path, sha256 and bytes. Raises UriFailed."""
        uri.write_bytes(self.at(file.path), file.data)
        return file.path, hashlib.sha256(file.data).hexdigest(), len(file.data)

    def report(self, number: int) -> dict[str, Any]:
        """What became of a shard that is done. Raises OutputError."""
        found = self._json(report_path(number))
        if found is None:
            raise OutputError(f"{uri.redact(self.at(report_path(number)))} is gone: run the same command again")
        return found

    def _json(self, path: str) -> dict[str, Any] | None:
        try:
            found = json.loads(uri.read_bytes(self.at(path), max_bytes=_MAX_BYTES))
        except uri.UriNotFound:
            return None
        except (OSError, ValueError) as error:
            raise OutputError(f"{uri.redact(self.at(path))} can't be read: {error}") from None
        if not isinstance(found, dict):
            raise OutputError(f"{uri.redact(self.at(path))} can't be read: it is no object")
        return found

    def _check_empty(self) -> None:
        if uri.list_files(self.root):
            raise OutputError(f"{uri.redact(self.root)!r} holds files that are no export: choose an empty folder")


def shard_path(number: int) -> str:
    """The rows of a shard."""
    return f"{SCRATCH}/shard-{number:06d}.parquet"


def report_path(number: int) -> str:
    """Its report: it is done."""
    return f"{SCRATCH}/report-{number:06d}.json"
