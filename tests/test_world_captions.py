"""What is said of scenes: complete, unambiguous, and of few words."""

from __future__ import annotations

import re

import pytest

from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT
from omnigen_actor.tasks import TASKS
from pipelines.world import captions, sampling
from pipelines.world.captions import QUESTIONS, vocabulary, words
from pipelines.world.draws import stream
from pipelines.world.presets import FULL, PRESETS, World
from pipelines.world.samples import TASKS_OF_THE_WORLD, make_sample
from pipelines.world.scene import RELATIONS

WORLDS = pytest.mark.parametrize("world", PRESETS.values(), ids=PRESETS)

THING = re.compile(
    r"(?:a|an) (?P<size>small|large) (?P<colour>\w+) (?:(?P<texture>striped|dotted) )?(?P<shape>\w+)"
    r" (?:at the|on the|in the) (?P<place>(?:top|bottom|left|right|center)(?: left| right)?)",
    re.IGNORECASE,
)


@WORLDS
def test_prompts_have_only_words_of_the_vocabulary(world: World) -> None:
    known = vocabulary(world)
    for task in TASKS_OF_THE_WORLD:
        used = {word for index in range(60) for word in words(make_sample(world, task, 3, index).prompt())}
        assert used <= known, used - known


@WORLDS
def test_the_vocabulary_is_small_and_has_the_words_around_a_prompt(world: World) -> None:
    known = vocabulary(world)
    assert len(known) < 250
    assert set(words(DEFAULT_NEGATIVE_PROMPT)) <= known
    assert {"generate", "an", "image", "according", "to", "the", "following", "instructions"} <= known
    assert {word for task in TASKS.values() for word in words(task.wording)} <= known
    assert all(re.fullmatch(r"[a-z]+", word) for word in known)


def test_words_are_split_at_punctuation_and_without_marks() -> None:
    assert words("A low-light {i}, <img><|image_1|></img>:\n {img1} Isn't!") == ["a", "low", "light", "isn", "t"]


@WORLDS
def test_a_caption_says_all_of_every_thing_and_the_background(world: World) -> None:
    for index in range(200):
        rng = stream(0, "caption", index)
        scene = sampling.scene_with_things(world, rng)
        text = captions.caption(rng, scene)
        said = [match.groupdict() for match in THING.finditer(text)]
        told = sorted(
            (one["size"], one["colour"], one["texture"] or "plain", one["shape"], one["place"]) for one in said
        )
        assert told == sorted(
            (thing.size, thing.colour, thing.texture, thing.shape, thing.place) for thing in scene.things
        )
        assert f"{scene.background} background" in text
        assert text[0].isupper()
        assert text.endswith(".")


def test_the_order_of_things_in_a_caption_is_any() -> None:
    scene = next(
        scene
        for index in range(50)
        if len((scene := sampling.scene_with_things(FULL, stream(0, "order", index))).things) == 3
    )
    texts = [captions.caption(stream(1, "order", index), scene) for index in range(60)]
    orders = {tuple(match["colour"] for match in THING.finditer(text)) for text in texts}
    assert len(orders) == 6


def test_a_caption_of_a_person_says_pose_shirt_and_place() -> None:
    for index in range(30):
        rng = stream(0, "caption", index)
        scene = sampling.scene_with_person(FULL, rng)
        person, text = scene.someone, captions.caption(rng, scene)
        for part in (
            f"{person.shirt} shirt",
            person.arms,
            person.legs,
            person.column,
            f"{scene.background} background",
        ):
            assert part in text
        beside = captions.caption_beside_pose(rng, scene)
        assert person.arms not in beside
        assert f"{person.shirt} shirt" in beside


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(["x"], "x"), (["x", "y"], "x and y"), (["x", "y", "z"], "x, y and z")],
)
def test_lists_are_read_aloud(texts: list[str], expected: str) -> None:
    assert captions.listed(texts) == expected


@WORLDS
def test_an_stands_before_vowels(world: World) -> None:
    for task in TASKS_OF_THE_WORLD:
        for index in range(40):
            prompt = make_sample(world, task, 4, index).prompt()
            assert not re.search(r"\b(?:a [aeiou]|an [^aeiou])\w*", prompt, re.IGNORECASE), prompt


def test_every_relation_has_its_question() -> None:
    assert set(QUESTIONS) == set(RELATIONS)
