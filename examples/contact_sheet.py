"""A picture of a run store: input images, the prompt and the result of each row. Reads nothing but the store's records.

    python examples/contact_sheet.py STORE SHEET.png [--rows 6]
    python examples/contact_sheet.py STORE SHEET.png --ids chain-1-photo,chain-2-edited

Without ids it is one row of each task, as many as fit. Input images are found where the manifest's own references lead
from its folder (--base-folder); a row among them is shown as the image that was made of it.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont, ImageOps

from omnigen_actor.store import image_key
from pipelines import references

Record = dict[str, Any]

CELL, TEXT, MARGIN = 128, 300, 8
NUM_COLOURS = 256
MARKS = str.maketrans({"\n": " "})


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--ids", type=lambda text: text.split(","), help="rows to draw, in this order: id,id,…")
    parser.add_argument("--base-folder", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    records = read(options.store)
    chosen = named(records, options.ids) if options.ids else one_per_task(records)[: options.rows]
    if not chosen:
        raise SystemExit(f"no finished row in {options.store}")
    sheet = draw(chosen, options.store, options.base_folder)
    sheet.quantize(NUM_COLOURS).save(options.sheet, optimize=True)
    print(f"{options.sheet}: {len(chosen)} rows")


def read(store: Path) -> list[Record]:
    """The records of all rows that have an image, by id and sample."""
    records: list[Record] = pq.read_table(store / "records", filters=[("status", "==", "ok")]).to_pylist()
    return sorted(records, key=lambda record: (record["id"], record["sample"]))


def one_per_task(records: list[Record]) -> list[Record]:
    """The first record of each task, then the others."""
    firsts = {record["task"]: record for record in reversed(records)}
    return [*firsts.values(), *(record for record in records if record is not firsts[record["task"]])]


def named(records: list[Record], ids: list[str]) -> list[Record]:
    """The first record of each of these rows, in their order."""
    firsts = {record["id"]: record for record in reversed(records)}
    missing = [row_id for row_id in ids if row_id not in firsts]
    if missing:
        raise SystemExit(f"no finished row {', '.join(missing)}; the store has {', '.join(sorted(firsts))}")
    return [firsts[row_id] for row_id in ids]


def draw(records: list[Record], store: Path, base_folder: Path) -> Image.Image:
    """One line per record: up to three inputs, the prompt, the result."""
    num_inputs = max(1, min(3, max(len(record["images"]) for record in records)))
    width = MARGIN + num_inputs * (CELL + MARGIN) + TEXT + MARGIN + CELL + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + len(records) * (CELL + MARGIN)), "white")
    for number, record in enumerate(records):
        top = MARGIN + number * (CELL + MARGIN)
        for place, image in enumerate(record["images"][:num_inputs]):
            path = input_path(image, record, store, base_folder)
            sheet.paste(thumbnail(path), (MARGIN + place * (CELL + MARGIN), top))
        write(sheet, record, (MARGIN + num_inputs * (CELL + MARGIN), top))
        sheet.paste(thumbnail(store / record["output_key"]), (width - CELL - MARGIN, top))
    return sheet


def input_path(image: str, record: Record, store: Path, base_folder: Path) -> Path:
    """Where an input image lies: that of a row in the store, in the format of the row that it went into."""
    parent = references.parse(image)
    if parent is None:
        return base_folder / image
    return store / image_key(*parent, Path(record["output_key"]).suffix)


def thumbnail(path: Path) -> Image.Image:
    """A picture, upright, on a white square."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGBA")
    page = Image.new("RGBA", upright.size, "white")
    return ImageOps.pad(Image.alpha_composite(page, upright).convert("RGB"), (CELL, CELL), color="white")


def write(sheet: Image.Image, record: Record, place: tuple[int, int]) -> None:
    """Task and prompt."""
    pen = ImageDraw.Draw(sheet)
    pen.text(place, record["task"], fill="black", font=ImageFont.load_default(14))
    lines = textwrap.wrap(record["prompt"].translate(MARKS), 46)[:7]
    pen.multiline_text((place[0], place[1] + 20), "\n".join(lines), fill="#444444", font=ImageFont.load_default(12))


if __name__ == "__main__":
    main()
