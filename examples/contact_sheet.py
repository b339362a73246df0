"""A picture of a run store: input images, the prompt and the result of each row. Reads nothing but the store's records.

    python examples/contact_sheet.py STORE SHEET.png [--rows 12]

Input images are found where the manifest's own references lead from its folder (--base-folder).
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont, ImageOps

CELL, TEXT, MARGIN = 128, 300, 8
MARKS = str.maketrans({"\n": " "})


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--base-folder", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    records = pq.read_table(options.store / "records", filters=[("status", "==", "ok")]).to_pylist()
    chosen = one_per_task(sorted(records, key=lambda record: record["id"]))[: options.rows]
    if not chosen:
        raise SystemExit(f"no finished row in {options.store}")
    draw(chosen, options.store, options.base_folder).save(options.sheet, optimize=True)
    print(f"{options.sheet}: {len(chosen)} rows")


def one_per_task(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first record of each task, then the others."""
    firsts = {record["task"]: record for record in reversed(records)}
    return [*firsts.values(), *(record for record in records if record is not firsts[record["task"]])]


def draw(records: list[dict[str, Any]], store: Path, base_folder: Path) -> Image.Image:
    """One line per record: up to three inputs, the prompt, the result."""
    num_inputs = max(1, min(3, max(len(record["images"]) for record in records)))
    width = MARGIN + num_inputs * (CELL + MARGIN) + TEXT + MARGIN + CELL + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + len(records) * (CELL + MARGIN)), "white")
    for number, record in enumerate(records):
        top = MARGIN + number * (CELL + MARGIN)
        for place, path in enumerate(record["images"][:num_inputs]):
            sheet.paste(thumbnail(base_folder / path), (MARGIN + place * (CELL + MARGIN), top))
        write(sheet, record, (MARGIN + num_inputs * (CELL + MARGIN), top))
        sheet.paste(thumbnail(store / record["output_key"]), (width - CELL - MARGIN, top))
    return sheet


def thumbnail(path: Path) -> Image.Image:
    """A picture, upright, on a white square."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGBA")
    page = Image.new("RGBA", upright.size, "white")
    return ImageOps.pad(Image.alpha_composite(page, upright).convert("RGB"), (CELL, CELL), color="white")


def write(sheet: Image.Image, record: dict[str, Any], place: tuple[int, int]) -> None:
    """Task and prompt."""
    pen = ImageDraw.Draw(sheet)
    pen.text(place, record["task"], fill="black", font=ImageFont.load_default(14))
    lines = textwrap.wrap(record["prompt"].translate(MARKS), 46)[:7]
    pen.multiline_text((place[0], place[1] + 20), "\n".join(lines), fill="#444444", font=ImageFont.load_default(12))


if __name__ == "__main__":
    main()
