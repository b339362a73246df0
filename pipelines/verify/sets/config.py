"""SetConfig: what is checked of a data set, and how. Knows no argv and no files."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from omnigen_actor.errors import ConfigError
from pipelines.config import InputConfig

_LIMITS = InputConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetConfig:
    """``has_hash``, ``has_decode``: of each image; with neither no image is read. ``image_root``: where paths start.

    ``near_duplicates``: bits of 64 in which hashes of images of two splits may differ; None: this is not looked for.
    ``has_load``: also load the set with the libraries that it is for.
    """

    image_root: str | None = None
    has_hash: bool = True
    has_decode: bool = True
    near_duplicates: int | None = None
    has_load: bool = False
    num_threads: int = 8
    max_image_bytes: int = _LIMITS.max_image_bytes
    max_image_pixels: int = _LIMITS.max_image_pixels

    def __post_init__(self) -> None:
        if self.num_threads < 1:
            raise ConfigError(f"threads={self.num_threads}: must be at least 1")
        if self.near_duplicates is not None:
            from pipelines.scores.hamming import check_radius

            check_radius(self.near_duplicates)
            if not self.is_read:
                raise ConfigError("near_duplicates: it has to read the images; leave out --quick")
            for package in ("imagehash", "scipy"):
                if find_spec(package) is None:
                    raise ConfigError(f"near_duplicates: it needs the package {package}: pip install {package}")

    @property
    def is_read(self) -> bool:
        """Whether images are read."""
        return self.has_hash or self.has_decode
