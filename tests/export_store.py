"""A run store with mixed tasks and 0 to 5 inputs, made by the real stages around the fake engine; and exports of it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from omnigen_actor import uri
from omnigen_actor.actor import OmniGenActor
from omnigen_actor.allowed import Allowed
from omnigen_actor.fake import FakeEngine
from omnigen_actor.placeholders import placeholder
from omnigen_actor.schema import PLAN
from omnigen_actor.tasks import DEFAULT_TASKS
from pipelines.config import InputConfig
from pipelines.export import run
from pipelines.export.config import ExportConfig
from pipelines.export.run import Exported, export
from pipelines.fetch import FetchImages
from pipelines.records import WriteRecords
from pipelines.selection import splits
from pipelines.selection.options import SelectionConfig
from pipelines.selection.run import select

RUN = "20260101T120000Z-0a0b0c"
PHOTOS = ("street.jpg", "plain.jpg", "drawing.png", "glass.png", "map.bmp")
"""With EXIF; without; without; with transparency; of a format that is not exported."""

SECRET = "Nikon of Ada Lovelace"


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    noise = bytes((seed * 37 + number * 11) % 256 for number in range(size[0] * size[1] * len(mode)))
    return Image.frombytes(mode, size, noise)


def make_photos(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0110], exif[0x0112] = SECRET, 6
    picture(1).save(folder / "street.jpg", exif=exif, quality=95)
    picture(2).save(folder / "plain.jpg", quality=95)
    picture(3).save(folder / "drawing.png")
    picture(4, "RGBA").save(folder / "glass.png")
    picture(5).save(folder / "map.bmp")


def row(row_id: str, task: str, instruction: str, *images: str, sample: int = 0) -> dict[str, Any]:
    return {
        "id": row_id, "sample": sample, "attempt": 1, "row_hash": hashlib.sha256(row_id.encode()).hexdigest(),
        "error_kind": None, "error_stage": None, "error": None, "task": task, "instruction": instruction or None,
        "prompt": DEFAULT_TASKS.find(task).prompt(instruction, len(images)), "images": list(images),
        "width": 64, "height": 48, "seed": 7 + sample, "steps": 4, "guidance_scale": 2.5, "img_guidance_scale": 1.6,
        "negative_prompt": None, "parents": [one.removeprefix("row:") + "#0" for one in images if "row:" in one],
        "depth": int(any("row:" in one for one in images)),
    }  # fmt: skip


def both(text: str, count: int) -> str:
    return f"{text} {' and '.join(map(placeholder, range(1, count + 1)))}."


ROWS = [
    row("boat", "text_to_image", "a boat"),
    row("boat", "text_to_image", "a boat", sample=1),
    row("a cat!", "text_to_image", "a cat, “quoted”"),
    row("v1.2", "text_to_image", "a version"),
    row("red", "edit", "make it red", "street.jpg"),
    row("blue", "edit", "make it blue", "plain.jpg"),
    row("again", "edit", "turn it", "row:boat"),
    row("edges", "canny", "", "drawing.png"),
    row("pair", "compose", both("Put together", 2), "glass.png", "map.bmp"),
    row("series", "in_context", "", "plain.jpg", "drawing.png", "plain.jpg"),
    row("crowd", "custom", both("All of", 5), *["plain.jpg"] * 5),
    row("broken", "text_to_image", "[fail]"),
]
NUM_IMAGES = len(ROWS) - 1


def make_store(root: str, photos: str, rows: list[dict[str, Any]] = ROWS, *, run_id: str = RUN) -> None:
    """Three batches, and a ``run.json`` that tells where relative references start."""
    for batch in (rows[:5], rows[5:6], rows[6:]):
        make_batch(root, photos, batch, run_id)
    told = {
        "fingerprint": {"steps": 4, "model_sha256": "0"},
        "earlier": [],
        "runs": [{"run_id": run_id, "image_base": photos, "config": {}}],
    }
    uri.write_bytes(uri.join(root, "run.json"), json.dumps(told).encode())


def make_in(folder: Path) -> None:
    """The photographs and a store of their rows: ``photos`` and ``store`` in a folder."""
    make_photos(folder / "photos")
    make_store(str(folder / "store"), str(folder / "photos"))


def make_batch(root: str, photos: str, rows: list[dict[str, Any]], run_id: str) -> None:
    placed = [one | {"image_uris": [_place(root, photos, text) for text in one["images"]]} for one in rows]
    fetched = FetchImages(InputConfig(), 64, Allowed((photos, root)))(pa.Table.from_pylist(placed, schema=PLAN))
    actor = OmniGenActor(FakeEngine, store_root=root, run_id=run_id)
    WriteRecords(root, run_id)(actor(fetched))
    actor.close()


def _place(root: str, photos: str, text: str) -> str:
    if text.startswith("row:"):
        from omnigen_actor import store

        return uri.join(root, store.image_key(text.removeprefix("row:"), 0, ".png"))
    return uri.join(photos, text)


def write_selection(root: Path, name: str, splits: dict[tuple[str, int], str | None]) -> None:
    """As the job for selections writes it: None is rejected."""
    rows = []
    for record in pq.read_table(root / "records").to_pylist():
        if record["status"] == "ok":
            split = splits.get((record["id"], record["sample"]))
            own = {"id": record["id"], "sample": record["sample"], "sha256": record["sha256"]}
            rows.append(own | {"is_kept": split is not None, "reason": None if split else "blank", "split": split})
    folder = root / "selections" / name
    folder.mkdir(parents=True)
    types = pa.schema(
        [("id", pa.string()), ("sample", pa.int32()), ("sha256", pa.string()), ("is_kept", pa.bool_()),
         ("reason", pa.string()), ("split", pa.string())]
    )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=types), folder / "selection.parquet")
    (folder / "selection.json").write_text('{"where": "any"}')


MORE = [
    row("red", "edit", "make it red", "street.jpg", sample=1),
    row("red", "edit", "make it red", "street.jpg", sample=2),
    row("blue", "edit", "make it blue", "plain.jpg", sample=1),
    row("edges", "canny", "", "drawing.png", sample=1),
    row("pair", "compose", both("Put together", 2), "glass.png", "map.bmp", sample=1),
    row("a cat!", "text_to_image", "a cat, “quoted”", sample=1),
]
NUM_PAIRS = 1 + len(MORE)
"""MORE, and the two boats."""


def add_pairs(root: Path, photos: str) -> None:
    """Further samples, a score of all, and the selection ``liked`` with pairs: the last sample of a row is chosen."""
    make_batch(str(root), photos, MORE, RUN)
    records = pq.read_table(root / "records").to_pylist()
    write_scores(
        root, "taste", taste={(one["id"], one["sample"]): one["sample"] / 4 for one in records if one["sha256"]}
    )
    config = SelectionConfig(by="taste", best=1, split=splits.parse("test=0.4"), seed=2)  # there are pairs in both
    select(str(root), "liked", config, has_pairs=True)


def of_format(image_format: str, root: Path, photos: str) -> dict[str, Any]:
    """What an export of this format needs beside the store: pairs need some, and a selection."""
    if image_format != "pairs":
        return {}
    add_pairs(root, photos)
    return {"selection": "liked"}


def write_scores(root: Path, name: str, **columns: dict[tuple[str, int], Any]) -> None:
    """As the job for scores writes them; images without a value have no row."""
    records = {(one["id"], one["sample"]): one for one in pq.read_table(root / "records").to_pylist()}
    keys = [key for key in next(iter(columns.values())) if key in records]
    table = pa.table(
        {
            "id": [key[0] for key in keys],
            "sample": pa.array([key[1] for key in keys], pa.int32()),
            "sha256": [records[key]["sha256"] for key in keys],
            **{column: _typed([values[key] for key in keys]) for column, values in columns.items()},
            "score_error": pa.nulls(len(keys), pa.string()),
        }
    )
    folder = root / "scores" / name
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "part-0123.parquet")
    (folder / "scorer.json").write_text(json.dumps({"name": name, "settings": {"k": 1}, "version": 1, "columns": []}))


def _typed(values: list[Any]) -> pa.Array:
    is_large = any(isinstance(value, int) and value > 2**63 for value in values)
    return pa.array(values, pa.uint64() if is_large else None)


def to_export(root: Path | str, dest: Path | str, image_format: str = "hf", **settings: Any) -> Exported:
    return export(str(root), str(dest), ExportConfig(format=image_format, **settings))


@contextmanager
def here(monkeypatch: pytest.MonkeyPatch, num_shards: int | None = None, shard_bytes: int = 2**20) -> Iterator[None]:
    """Shards are made in this process, one after the other, and small ones; an interrupt after so many."""

    def execute(write: Any, tasks: list[pa.Table]) -> Iterator[int]:
        for number, task in enumerate(tasks):
            if number == num_shards:
                raise KeyboardInterrupt
            yield write(task).num_rows

    with monkeypatch.context() as patch:
        patch.setattr(run, "_execute", execute)
        patch.setattr(run, "_MIB", shard_bytes // 256)
        patch.setattr(run.cluster, "joined", lambda *_: nullcontext())
        patch.setattr(run.cluster, "settings_of_a_run", lambda *_: nullcontext())
        yield


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")
