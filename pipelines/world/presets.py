"""What a world has: shapes, colours, sizes, places, poses; and two presets. Knows no pixels and draws nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from omnigen_actor.errors import ConfigError

Rgb = tuple[int, int, int]
"""Red, green, blue, each 0 … 255."""

SIZES = (64, 128)
"""The sides of a picture in pixels that a world may have."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Every list that scenes are drawn from. Lengths are shares of a picture's side, angles are degrees.

    ``size`` is the side of all pictures in pixels. ``counts`` are the numbers of things that a scene may have; one that
    is there twice is twice as likely. ``sizes`` are names with radii, ``places`` names with centres (x, y), ``columns``
    where a person stands, with x; ``relations`` are what an example may show (``in_context``). ``max_shift``,
    ``max_growth`` and ``max_tilt`` bound what no words tell of a thing: how far it is from the centre of its place, by
    what share its radius differs, how it is turned; ``max_swing`` does so for a person's limbs.
    Raises ConfigError for another size, or where a thing and a background have a colour's name in common.
    """

    size: int = 64
    counts: tuple[int, ...]
    shapes: tuple[str, ...]
    colours: tuple[tuple[str, Rgb], ...]
    sizes: tuple[tuple[str, float], ...]
    textures: tuple[str, ...]
    backgrounds: tuple[tuple[str, Rgb], ...]
    places: tuple[tuple[str, tuple[float, float]], ...]
    columns: tuple[tuple[str, float], ...]
    relations: tuple[str, ...]
    arm_poses: tuple[str, ...]
    leg_poses: tuple[str, ...]
    skin: Rgb
    trousers: Rgb
    person_share: float
    max_shift: float
    max_growth: float
    max_tilt: float
    max_swing: float

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"size={self.size}: a world's pictures have a side of {' or '.join(map(str, SIZES))} px")
        both = set(self.colour_names) & set(self.background_names)
        if both:
            raise ConfigError(f"colours {sorted(both)} are those of things and of backgrounds: they must differ")

    @cached_property
    def rgb(self) -> dict[str, Rgb]:
        """The colour of each name, of things and of backgrounds."""
        return dict((*self.colours, *self.backgrounds))

    @cached_property
    def colour_names(self) -> tuple[str, ...]:
        """What a thing or a shirt may be coloured."""
        return tuple(name for name, _ in self.colours)

    @cached_property
    def background_names(self) -> tuple[str, ...]:
        """What a background may be coloured."""
        return tuple(name for name, _ in self.backgrounds)

    @cached_property
    def centres(self) -> dict[str, tuple[float, float]]:
        """The centre (x, y) of each place."""
        return dict(self.places)

    @cached_property
    def place_names(self) -> tuple[str, ...]:
        """All places."""
        return tuple(self.centres)


_THREE = ((("top", 0.22), ("", 0.5), ("bottom", 0.78)), (("left", 0.22), ("", 0.5), ("right", 0.78)))
_PLACES = tuple(
    (" ".join(filter(None, (row, column))) or "center", (x, y)) for row, y in _THREE[0] for column, x in _THREE[1]
)

# Far apart in hue, and in brightness as well, also from the backgrounds: a grey picture still tells which is which.
_SIX_COLOURS = (
    ("red", (220, 40, 40)),
    ("green", (40, 160, 70)),
    ("blue", (35, 60, 190)),
    ("yellow", (250, 220, 60)),
    ("cyan", (35, 180, 205)),
    ("white", (250, 250, 250)),
)

# Muted, and none near a thing's colour: what is green on olive, or dark on dark, does not survive a small autoencoder.
_BACKGROUNDS = (
    ("grey", (152, 152, 157)),
    ("pink", (225, 150, 175)),
    ("beige", (210, 190, 135)),
    ("lavender", (165, 155, 220)),
    ("mint", (135, 210, 165)),
)

SMALL = World(
    counts=(1, 2),
    shapes=("circle", "square", "triangle"),
    colours=_SIX_COLOURS,
    sizes=(("small", 0.105), ("large", 0.17)),
    textures=("plain",),
    backgrounds=_BACKGROUNDS,
    places=_PLACES,
    columns=(("left", 0.3), ("center", 0.5), ("right", 0.7)),
    relations=("edges", "depth", "pose", "grey", "background"),
    arm_poses=("arms down", "arms up", "arms out", "left arm up", "right arm up"),
    leg_poses=("legs together", "legs apart", "left leg up"),
    skin=(105, 62, 40),
    trousers=(58, 62, 82),
    person_share=0.25,
    max_shift=0.025,
    max_growth=0.06,
    max_tilt=8.0,
    max_swing=6.0,
)
"""What two CPU cores can learn in about an hour."""

FULL = replace(
    SMALL,
    counts=(0, 1, 1, 2, 2, 3, 3),
    shapes=(*SMALL.shapes, "star", "cross"),
    colours=(*_SIX_COLOURS, ("purple", (150, 70, 190)), ("orange", (235, 120, 25))),
    textures=("plain", "striped", "dotted"),
    relations=(*SMALL.relations, "recolour"),
    max_tilt=15.0,
)
"""More of everything."""

PRESETS = {"small": SMALL, "full": FULL}
"""The presets by name."""
