"""What is said of a scene, in plain English from a closed vocabulary. Knows no pixels and no builders of samples.

Every phrase of every instruction is in PHRASES, so that `vocabulary` can be complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT, Text, segments
from omnigen_actor.placeholders import placeholder
from omnigen_actor.tasks import TASKS
from pipelines.world.draws import Rng, pick, shuffled
from pipelines.world.presets import World
from pipelines.world.scene import RELATIONS, Person, Scene, Thing

PHRASES: dict[str, tuple[str, ...]] = {
    "scene": ("{things} on {background}.", "On {background}, {things}."),
    "empty": ("Nothing on {background}.",),
    "person": ("{person} on {background}.", "On {background}, {person}."),
    "a person": ("a person with {shirt}, {arms} and {legs}, {where}",),
    "a person of the pose": ("a person with {shirt}",),
    "a background": ("{a} background",),
    "a shirt": ("{a} shirt",),
    "find": ("the {name}", "all objects", "the person"),
    "recolour": ("make the {name} {colour}", "change the {name} to {colour}"),
    "remove": ("remove the {name}",),
    "add": ("add {thing}",),
    "background": ("change the background to {colour}", "make the background {colour}"),
    "several": ("{first} and {second}.",),
    "reasoning": ("{question} {action}.",),
    "remove it": ("remove it",),
    "recolour it": ("make it {colour}",),
    "one moved": ("The {name} in {image} is {where} on {background}.",),
    "two moved": ("The {first} in {image1} is {where1} and the {second} in {image2} is {where2} on {background}.",),
    "put": ("Put the {name} of {image1} {where} of {image2}.",),
}

QUESTIONS = {
    "left": "Which object is on the left?",
    "right": "Which object is on the right?",
    "top": "Which object is at the top?",
    "bottom": "Which object is at the bottom?",
    "nearest": "Which object is the nearest?",
    "farthest": "Which object is the farthest?",
    "largest": "Which object is the largest?",
    "smallest": "Which object is the smallest?",
}

SHIRT = "shirt"
"""What a person's shirt is called in an edit."""

_WHERE = {"center": "in the center", "left": "on the left", "right": "on the right"}
_TEMPLATE_OR_MARK = re.compile(r"\{[^}]*\}|<[^>]*>")
_WORD = re.compile(r"[a-z]+")


def vocabulary(world: World) -> frozenset[str]:
    """Every word, in small letters, that can be in a prompt of this world or of the task table, in the model's template
    or in its default negative prompt. Placeholders and special tokens are no words.
    """
    texts = [
        *(phrase for phrases in PHRASES.values() for phrase in phrases),
        *(wording for task in TASKS.values() for wording in task.wordings),
        *QUESTIONS.values(),
        *_WHERE.values(),
        *(f"at the {place}" for place in world.place_names),
        *(f"{relation} object" for relation in RELATIONS),
        *(name for names in _names(world) for name in names),
        *_template(),
        "a an and",
        DEFAULT_NEGATIVE_PROMPT,
    ]
    return frozenset(word for text in texts for word in words(text))


def words(text: str) -> list[str]:
    """The words of a text in small letters: split at white space and punctuation, without marks and placeholders."""
    return _WORD.findall(_TEMPLATE_OR_MARK.sub(" ", text.lower()))


def caption(rng: Rng, scene: Scene) -> str:
    """All that words can say of a scene, its things in any order."""
    ground = a_background(scene.background)
    if scene.person is not None:
        return sentence(say(rng, "person", person=a_person(scene.person), background=ground))
    if not scene.things:
        return say(rng, "empty", background=ground)
    things = listed([a_thing(thing) for thing in shuffled(rng, scene.things)])
    return sentence(say(rng, "scene", things=things, background=ground))


def caption_beside_pose(rng: Rng, scene: Scene) -> str:
    """What is said of a person whose pose another picture shows."""
    person = say(rng, "a person of the pose", shirt=a_shirt(scene.someone.shirt))
    return sentence(say(rng, "person", person=person, background=a_background(scene.background)))


def say(rng: Rng, key: str, **marks: str) -> str:
    """One of the phrases of ``key``, filled in."""
    return pick(rng, PHRASES[key]).format(**marks)


def sentence(text: str) -> str:
    """The text with a capital letter."""
    return text[:1].upper() + text[1:]


def name_of(thing: Thing) -> str:
    """What a thing is called where its colour tells it from others: ``red circle``."""
    return f"{thing.colour} {thing.shape}"


def a_thing(thing: Thing) -> str:
    """All that words say of a thing: ``a large red striped circle at the top``."""
    texture = "" if thing.texture == "plain" else f"{thing.texture} "
    return f"{_a(thing.size)} {thing.colour} {texture}{thing.shape} {where(thing.place)}"


def a_person(person: Person) -> str:
    """All that words say of a person."""
    (phrase,) = PHRASES["a person"]
    shirt = a_shirt(person.shirt)
    return phrase.format(shirt=shirt, arms=person.arms, legs=person.legs, where=where(person.column))


def a_background(colour: str) -> str:
    """``a pink background``."""
    return PHRASES["a background"][0].format(a=_a(colour))


def a_shirt(colour: str) -> str:
    """``an orange shirt``."""
    return PHRASES["a shirt"][0].format(a=_a(colour))


def where(place: str) -> str:
    """``at the top left``, ``on the right``, ``in the center``."""
    return _WHERE.get(place, f"at the {place}")


def listed(texts: Sequence[str]) -> str:
    """``x``, ``x and y``, ``x, y and z``."""
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def mark(number: int) -> str:
    """The placeholder of an input picture, as instructions have it."""
    return placeholder(number)


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _template() -> Iterable[str]:
    """What the model's template says around a prompt."""
    chunks = segments("", lambda text: [ord(character) for character in text])
    return ("".join(map(chr, chunk.ids)) for chunk in chunks if isinstance(chunk, Text))


def _names(world: World) -> Iterable[Iterable[str]]:
    return (
        world.shapes,
        world.colour_names,
        world.background_names,
        (name for name, _ in world.sizes),
        world.textures,
        (name for name, _ in world.columns),
        world.arm_poses,
        world.leg_poses,
    )
