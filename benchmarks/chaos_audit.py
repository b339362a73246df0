"""What is in a store after a run, looked at with nothing of the code that wrote it but its layout. Knows no chaos."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Images by (id, sample): key in the store, sha256 of the file. ``faults``: what must not be, in words."""

    images: Mapping[str, str]
    faults: tuple[str, ...]
    num_orphans: int


def look(store: Path, expected: set[str]) -> Found:
    """Compare a local store with the ``id#sample`` that it must have, each with one good record and its image."""
    faults: list[str] = []
    records = [row for file in sorted((store / "records").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    by_row: dict[str, list[dict[str, Any]]] = {}
    for row in records:
        by_row.setdefault(f"{row['id']}#{row['sample']}", []).append(row)
    faults += [f"{name} has no record" for name in sorted(expected - by_row.keys())]
    faults += [f"{name} was not asked for" for name in sorted(by_row.keys() - expected)]
    images: dict[str, str] = {}
    for name, rows in by_row.items():
        last = max(row["attempt"] for row in rows)
        current = [row for row in rows if row["attempt"] == last]
        if len(current) > 1:
            faults.append(f"{name} has {len(current)} current records")
        if current[0]["status"] != "ok":
            faults.append(f"{name} is {current[0]['status']}: {current[0]['error_kind']} {current[0]['error']}")
            continue
        path = store / current[0]["output_key"]
        images[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        if images[name] != current[0]["sha256"]:
            faults.append(f"the image of {name} is {'not that of its record' if images[name] else 'not there'}")
    files = {path.relative_to(store).as_posix() for path in (store / "images").rglob("*.png")}
    named = {row["output_key"] for rows in by_row.values() for row in rows if row["status"] == "ok"}
    return Found(images=images, faults=tuple(faults), num_orphans=len(files - named))


def differing(found: Mapping[str, str], undisturbed: Mapping[str, str]) -> list[str]:
    """The images that are not those of an undisturbed run."""
    return sorted(name for name in undisturbed if found.get(name) != undisturbed[name])


def num_repeated(started: Counter[str]) -> int:
    """How many images were begun once more than they had to be, in all."""
    return sum(started.values()) - len(started)
