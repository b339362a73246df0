"""What is in a picture: things, a person, a background, and how near each is. Knows no pixels and draws nothing.

Lengths are shares of a picture's side, x to the right and y down: one scene is the same at every size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.world.figure import Point
from pipelines.world.presets import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing: what words say of it, and in ``x``, ``y``, ``radius`` and ``tilt`` (degrees) exactly how it is."""

    shape: str
    colour: str
    size: str
    texture: str
    place: str
    x: float
    y: float
    radius: float
    tilt: float

    @property
    def depth(self) -> float:
        """How near it is, 1 near … 0 far."""
        return depth_at(self.y)

    def at(self, world: World, place: str) -> Thing:
        """The same thing at the very centre of another place."""
        x, y = world.centres[place]
        return replace(self, place=place, x=x, y=y)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One person: what words say, and exactly where the joints are, in the order of ``figure.JOINTS``."""

    shirt: str
    arms: str
    legs: str
    column: str
    joints: tuple[Point, ...]

    @property
    def depth(self) -> float:
        """How near the person is, 1 near … 0 far: as near as the lower foot."""
        return depth_at(max(y for _, y in self.joints))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A background, and the things and the person before it."""

    background: str
    things: tuple[Thing, ...] = ()
    person: Person | None = None

    @property
    def colours(self) -> tuple[str, ...]:
        """The colours of its things and of its shirt; no two are the same."""
        own = tuple(thing.colour for thing in self.things)
        return own if self.person is None else (*own, self.person.shirt)

    @property
    def someone(self) -> Person:
        """The person, of a scene that has one."""
        assert self.person is not None, "a scene without a person"
        return self.person

    def without(self, index: int) -> Scene:
        """The scene without one thing."""
        return replace(self, things=(*self.things[:index], *self.things[index + 1 :]))

    def with_thing(self, index: int, thing: Thing) -> Scene:
        """The scene with one thing in the place of another."""
        return replace(self, things=(*self.things[:index], thing, *self.things[index + 1 :]))


def depth_at(y: float) -> float:
    """How near is what stands at height ``y``, 1 near … 0 far: the lower in the picture, the nearer."""
    return 0.25 + 0.75 * y


def stands_free(thing: Thing, others: tuple[Thing, ...]) -> bool:
    """Whether the thing leaves the others, and they it, in sight: none may cover more than a small part of another."""
    return all(
        (thing.x - other.x) ** 2 + (thing.y - other.y) ** 2 >= (0.8 * (thing.radius + other.radius)) ** 2
        for other in others
    )


_WAYS = {
    "left": lambda thing: -thing.x,
    "right": lambda thing: thing.x,
    "top": lambda thing: -thing.y,
    "bottom": lambda thing: thing.y,
    "nearest": lambda thing: thing.depth,
    "farthest": lambda thing: -thing.depth,
    "largest": lambda thing: thing.radius,
    "smallest": lambda thing: -thing.radius,
}
RELATIONS = tuple(_WAYS)
"""How one thing may stand out among the others."""

_MARGINS = {"largest": 0.04, "smallest": 0.04}
_MARGIN = 0.15


def standing_out(scene: Scene, relation: str) -> int | None:
    """Which thing is the left, the nearest … one, or None where there are no two or it is not plain to see."""
    amounts = [_WAYS[relation](thing) for thing in scene.things]
    if len(amounts) < 2:
        return None
    second, first = sorted(amounts)[-2:]
    return amounts.index(first) if first - second >= _MARGINS.get(relation, _MARGIN) else None
