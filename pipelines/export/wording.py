"""A prompt with placeholders -> the same in plain words, for models that are given images without them. Knows no files.

OmniGen2 reads the images before the text. So placeholders that only put the images first are dropped, and one that a
sentence needs becomes "the first image".
"""

from __future__ import annotations

import re

from omnigen_actor import placeholders

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_MARK = r"<img><\|image_(\d+)\|></img>"
_LEADING = re.compile(rf"\s*(?:{_MARK}\s*)+")
_NAMED = re.compile(rf"(?:\b(?:the|this|that|an?)\s+)?(?:\b(?:input\s+)?(?:image|picture|photo)\s*:?\s*)?{_MARK}", re.I)


def without_placeholders(prompt: str, instruction: str) -> str:
    """The prompt in words alone; ``instruction`` is what the manifest had, without the wording of its task."""
    own = placeholders.normalise(instruction).strip()
    if own and not placeholders.numbers(own) and _LEADING.sub("", prompt, count=1) == own:
        return own
    return _NAMED.sub(_ordinal, _without_leading(prompt)).strip()


def _without_leading(prompt: str) -> str:
    """Without images at the very beginning, where a sentence of its own follows."""
    leading = _LEADING.match(prompt)
    if leading is None:
        return prompt
    rest = prompt[leading.end() :]
    is_new_line = "\n" in leading[0]
    return rest if rest and (is_new_line or rest[0].isupper()) else prompt


def _ordinal(match: re.Match[str]) -> str:
    number = int(match[1])
    named = f"the {_ORDINALS[number - 1]} image" if number <= len(_ORDINALS) else f"image {number}"
    begins = match[0][0].isupper() or (
        match[0][0] == "<"
        and (not match.string[: match.start()] or match.string[: match.start()].endswith((". ", "\n")))
    )
    return named[0].upper() + named[1:] if begins else named
