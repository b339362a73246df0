"""Placeholders in every form that people write."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnigen_actor.errors import ErrorKind, RowError, Stage
from omnigen_actor.placeholders import IMAGE_MARK, check, normalise, numbers, placeholder

ONE, TWO = placeholder(1), placeholder(2)


@pytest.mark.parametrize(
    "written",
    [
        "<img><|image_1|></img>",
        "<img><|image_1|><img>",  # the authors' broken closers
        r"<img><|image_1|><\/img>",
        r"<img><|image_1|><\img>",
        "<|image_1|>",
        "< img > < | image_1 | > </ img >",
        "<img><|image_01|></img>",
        "<|image_1|></img>",
        "<img><|image_1|>",
    ],
)
def test_every_form_is_read_as_the_canonical_one(written: str) -> None:
    found = normalise(f"a {written} b")
    assert found == f"a {ONE} b"
    assert numbers(found) == [1]


def test_the_text_around_placeholders_stays() -> None:
    assert normalise("in  <|image_1|>\n and\t<img><|image_2|></img>.") == f"in  {ONE}\n and\t{TWO}."
    assert normalise("<|image_1|> <img><|image_2|></img>") == f"{ONE} {TWO}"
    assert normalise("<img><|image_1|><img> <img><|image_2|><img>") == f"{ONE} {TWO}"
    assert normalise("<img><|image_1|><img><|image_2|></img>") == ONE + TWO
    assert normalise("no <img> here, <|user|> neither") == "no <img> here, <|user|> neither"


_PIECES = st.sampled_from(
    ["<img>", "</img>", r"<\/img>", "<|image_1|>", "< | image_2 | >", " ", "\n", "a", "<", "|>", "image_3"]
)


@settings(deadline=None)
@given(st.lists(_PIECES | st.text(max_size=3), max_size=12).map("".join))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    # No mark is left that the engine would read as an image and the check did not count.
    assert [int(number) for number in IMAGE_MARK.findall(once)] == numbers(once)


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), max_size=8), st.integers(0, 5))
def test_exactly_the_numbers_from_1_pass_in_any_order_and_repeated(found: list[int], num_images: int) -> None:
    prompt = " ".join(map(placeholder, found))
    if set(found) == set(range(1, num_images + 1)):
        check(prompt, num_images)
    else:
        with pytest.raises(RowError) as caught:
            check(prompt, num_images)
        assert (caught.value.kind, caught.value.stage) == (ErrorKind.BAD_PLACEHOLDERS, Stage.CHECK)


@pytest.mark.parametrize(
    ("prompt", "num_images", "words"),
    [
        (ONE, 2, "2 images but placeholders for 1 only; missing <img><|image_2|></img>"),
        (ONE + TWO, 1, "1 images but placeholders up to <img><|image_2|></img>; 1 too many"),
        ("a cat", 1, "1 images but placeholders for 0 only; missing <img><|image_1|></img>"),
        (ONE + placeholder(3), 2, "the numbers are [1, 3], and must run from 1 without gaps"),
        (placeholder(0) + ONE, 1, "the numbers are [0, 1], and must run from 1 without gaps"),
    ],
)
def test_the_message_says_what_is_wrong(prompt: str, num_images: int, words: str) -> None:
    with pytest.raises(RowError) as caught:
        check(prompt, num_images)
    assert words in str(caught.value)


@pytest.mark.parametrize("digits", ["999999999", "9" * 5000, "0" * 5000 + "1"])
def test_a_hostile_number_is_an_error_and_no_crash(digits: str) -> None:
    with pytest.raises(RowError, match="without gaps") as caught:
        check(normalise(f"<|image_{digits}|>"), 1)
    assert len(str(caught.value)) < 200


def test_a_thousand_wrong_numbers_make_a_short_message() -> None:
    with pytest.raises(RowError, match="…") as caught:
        check("".join(placeholder(2 * number) for number in range(1, 1000)), 1)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text", [" " * 200_000, "<" * 200_000, "<img>" * 40_000, "<|image_1|>" * 20_000, "< " * 100_000]
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    started = time.perf_counter()
    normalise(text + "image_")
    assert time.perf_counter() - started < 2.0
