"""The `<img><|image_i|></img>` placeholders of a prompt: normalise, check, number. Knows no tokenizer.

The authors' own examples close them wrongly (`<img><|image_1|><img>`, `<\\/img>`); all forms are read as the right one.
"""

from __future__ import annotations

import re

from omnigen_actor.errors import ErrorKind, RowError, Stage

_OPENER = r"<\s*img\s*>"
_CLOSER = r"<\s*(?:\\/?|/)\s*img\s*>"
_MARK = r"<\s*\|\s*image_(\d+)\s*\|\s*>"
# White space is only matched next to a tag: a pattern that may begin with it takes quadratic time on a run of blanks.
# An opener right before the next mark opens that one; it does not close this one.
_ANY_FORM = re.compile(rf"(?:(?:{_OPENER}|{_CLOSER})\s*)?{_MARK}(?:\s*(?:{_CLOSER}|{_OPENER}(?!\s*<\s*\|)))?")
_CANONICAL = re.compile(r"<img><\|image_(\d+)\|></img>")
_MAX_DIGITS = 9
IMAGE_MARK = re.compile(r"<\|image_(\d+)\|>")
"""What a canonical prompt is split at: the part that image tokens replace."""


def placeholder(number: int) -> str:
    """The canonical placeholder of the ``number``-th input image, counted from 1."""
    return f"<img><|image_{number}|></img>"


def normalise(text: str) -> str:
    """Rewrite every form of a placeholder to the canonical one; the text around it stays."""
    return text if "image_" not in text else _ANY_FORM.sub(lambda match: placeholder(_number(match.group(1))), text)


def numbers(prompt: str) -> list[int]:
    """The image numbers of a canonical prompt, in order of appearance."""
    return [_number(digits) for digits in _CANONICAL.findall(prompt)]


def check(prompt: str, num_images: int) -> None:
    """Raise RowError unless the placeholders of a canonical prompt are exactly 1…num_images; repeats are allowed."""
    found = sorted(set(numbers(prompt)))
    if found == list(range(1, num_images + 1)):
        return
    highest = found[-1] if found else 0
    if found != list(range(1, len(found) + 1)):
        shown = f"{found[:10]}…" if len(found) > 10 else f"{found}"
        problem = f"the numbers are {shown}, and must run from 1 without gaps"
    elif highest < num_images:
        problem = f"{num_images} images but placeholders for {highest} only; missing {placeholder(highest + 1)}"
    else:
        problem = f"{num_images} images but placeholders up to {placeholder(highest)}; {highest - num_images} too many"
    raise RowError(ErrorKind.BAD_PLACEHOLDERS, Stage.CHECK, f"placeholders do not match the images: {problem}")


def _number(digits: str) -> int:
    """No image has a number of ten digits; cut there, a hostile one is a wrong number and not a crash of ``int``."""
    return int(digits[:_MAX_DIGITS])
