"""Does a set load with the libraries that it is for? Each load is a process of its own: it may fail in any way.

Knows no rows. The libraries are optional: what is not installed is not tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from omnigen_actor import uri
from omnigen_actor.errors import ConfigError
from omnigen_actor.uri_names import local_path
from pipelines.verify.findings import Finding, FindingKind
from pipelines.verify.sets.source import Rows, RowsFile, Source

_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_LONGEST = 300


def check_can_load(root: str) -> None:
    """Raises ConfigError where there is nothing to load with, or the set is not on this machine."""
    if not uri.is_local(root):
        raise ConfigError("load: the libraries read what is on this machine; copy the set, or leave out --load")
    if not (find_spec("datasets") or find_spec("webdataset")):
        raise ConfigError("load: neither datasets nor webdataset is installed: pip install datasets webdataset")


def check_loads(source: Source, num_rows: dict[str, int]) -> Iterator[Finding]:
    """Load each group of files that goes together. ``num_rows``: how many rows were found in each file."""
    for files in _groups(source):
        expected = sum(num_rows.get(file.path, 0) for file in files)
        for library, call in _calls(source, files):
            if find_spec(library) is None:
                continue
            found, error = _load(call)
            key = files[0].path if len(files) == 1 else f"{files[0].path} and {len(files) - 1} more"
            if error is not None:
                yield Finding(kind=FindingKind.LOAD_FAILED, key=key, message=f"{library}: {error}")
            elif found != expected:
                message = f"{library} loads {found} rows, and there are {expected}"
                yield Finding(kind=FindingKind.LOAD_FAILED, key=key, message=message)


def _groups(source: Source) -> Iterator[list[RowsFile]]:
    """Files of one kind: JSON lines each by itself, tars of a folder, all Parquet of a split."""
    groups: dict[tuple[str, str], list[RowsFile]] = {}
    for file in source.files:
        alone = file.path if file.rows is Rows.JSONL else file.folder
        groups.setdefault((alone, file.split), []).append(file)
    yield from groups.values()


def _calls(source: Source, files: list[RowsFile]) -> Iterator[tuple[str, dict[str, Any]]]:
    paths = [str(local_path(uri.join(source.root, file.path))) for file in files]
    match files[0].rows:
        case Rows.JSONL:
            yield "datasets", {"builder": "json", "data_files": paths}
        case Rows.TAR:
            yield "datasets", {"builder": "webdataset", "data_files": paths}
            yield "webdataset", {"tars": paths}
        case Rows.PARQUET if source.kind == "export (files)":
            folder = str(local_path(uri.join(source.root, files[0].folder)))
            yield "datasets", {"builder": "imagefolder", "data_dir": folder}
        case Rows.PARQUET:
            yield "datasets", {"builder": "parquet", "data_files": paths}


def _load(call: dict[str, Any]) -> tuple[int | None, str | None]:
    """How many rows another process could load, or what it said."""
    with tempfile.TemporaryDirectory(prefix="omnigen-batch-verify-") as cache:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", __name__],
            input=json.dumps(call | {"cache_dir": cache}),
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | _OFFLINE,
        )
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines and lines[-1].isdigit():
        return int(lines[-1]), None
    said = [line for line in done.stderr.strip().splitlines() if line.strip()]
    return None, (said[-1] if said else f"it ended with {done.returncode}")[:_LONGEST]


def _main() -> None:
    call = json.loads(sys.stdin.read())
    if "tars" in call:
        import webdataset

        num_rows = sum(1 for _ in webdataset.WebDataset(call["tars"], shardshuffle=False))
        sys.stdout.write(f"{num_rows}\n")
        return
    import datasets

    datasets.disable_progress_bars()
    builder = call.pop("builder")
    # The split is only a name here: what is loaded is what the files have.
    sys.stdout.write(f"{len(datasets.load_dataset(builder, split='train', **call))}\n")


if __name__ == "__main__":
    _main()
