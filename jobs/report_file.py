"""The file that a job leaves for machines, where one is asked for. Knows nothing of what is in it."""

from __future__ import annotations

from omnigen_actor import uri
from omnigen_actor.errors import OutputError
from pipelines.locations import locate


def place_of(named: str | None) -> str | None:
    """``--report`` as an absolute path or URI. Raises OutputError."""
    return named and locate(named, OutputError, "report ")


def write(place: str | None, text: str) -> None:
    """Nothing where no place was named. Raises OutputError."""
    if not place:
        return
    try:
        uri.write_bytes(place, text.encode())
    except OSError as error:
        raise OutputError(f"the report can't be written: {error}") from None
