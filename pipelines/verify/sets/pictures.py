"""One image of a set: is it there, is it whole, what does it say of itself. Knows no rows.

Images are untrusted: they are read below one folder, links followed, and decoded within limits.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from omnigen_actor import images, uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import RowError, first_line
from omnigen_actor.provenance import read_provenance
from pipelines.verify.findings import FindingKind
from pipelines.verify.sets.config import SetConfig
from pipelines.verify.sets.declared import Declared, Index
from pipelines.verify.sets.member import Fault, Picture

_REMEMBERED = 4096
_KEPT = ("id", "sample", "instruction", "prompt", "images", "image_sha256", "shortened")
_NAMED_BY_CONTENT = re.compile(r"([0-9a-f]{64})\.[a-z]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an image is. ``pixels``: a digest of them. ``told``: what its metadata says that it was made from.

    All but ``num_bytes`` only as far as it was looked for.
    """

    num_bytes: int
    sha256: str | None = None
    size: tuple[int, int] | None = None
    pixels: bytes | None = None
    phash: int | None = None
    told: Mapping[str, Any] | None = None


Looked = Facts | Fault


class LookAt:
    """Looks at images. ``index``: what an export says of its loose ones; None: a set of others."""

    def __init__(self, image_root: str, config: SetConfig, index: Index | None, *, is_ours: bool) -> None:
        self._root = image_root
        self._config = config
        self._index = index
        self._is_ours = is_ours
        self._allowed = Allowed((image_root,))
        self._at = lru_cache(_REMEMBERED)(self._of_path)

    def of_data(self, picture: Picture, data: bytes, *, is_output: bool) -> Looked:
        """An image that its row holds."""
        return self._of(picture.name, data, is_output=is_output)

    def of_path(self, path: str, *, is_output: bool) -> Looked:
        """An image below the folder; inputs that rows share are read once, or now and then."""
        return self._of_path(path, is_output=True) if is_output else self._at(path, is_output=False)

    def _of_path(self, path: str, *, is_output: bool) -> Looked:
        entry = self._index.find(path) if self._index is not None else None
        found = self._read(path, entry)
        if isinstance(found, Fault):
            return found
        if self._index is not None and entry is None:
            return Fault(FindingKind.FOREIGN_FILE, f"{path!r}: a row names it, and the export does not have it")
        if isinstance(found, Facts):
            return found
        if entry and self._config.has_hash and hashlib.sha256(found).hexdigest() != entry.sha256:
            return Fault(FindingKind.IMAGE_SHA256, f"{path!r}: its sha256 is not the {entry.sha256} of the export")
        return self._of(path, found, is_output=is_output)

    def _read(self, path: str, entry: Declared | None) -> bytes | Looked:
        """The file's bytes, or its size where no image is read."""
        place = uri.join(self._root, path)
        try:
            if not self._config.is_read:
                return self._size(path, place, entry)
            return uri.read_bytes(place, max_bytes=self._config.max_image_bytes, allowed=self._allowed)
        except uri.Refused as error:
            return Fault(FindingKind.PATH_OUTSIDE, f"{path!r}: a link that leads out of the set ({error})")
        except uri.UriNotFound:
            return Fault(FindingKind.IMAGE_MISSING, f"{path!r}: there is no such file")
        except (OSError, ValueError) as error:
            return Fault(FindingKind.IMAGE_UNREADABLE, f"{path!r}: {first_line(error)}")

    def _size(self, path: str, place: str, entry: Declared | None) -> Looked:
        if uri.is_local(place):
            self._allowed.real_path(place)
        with uri.open_read(place) as stream:
            num_bytes = stream.seek(0, 2)
        if entry and entry.num_bytes != num_bytes:
            message = f"{path!r}: the export has {entry.num_bytes} bytes, and here are {num_bytes}"
            return Fault(FindingKind.IMAGE_BYTES, message)
        return Facts(num_bytes=num_bytes)

    def _of(self, name: str, data: bytes, *, is_output: bool) -> Looked:
        sha256 = hashlib.sha256(data).hexdigest() if self._config.has_hash else None
        named = _NAMED_BY_CONTENT.fullmatch(posixpath.basename(name)) if self._is_ours else None
        if sha256 and named and named[1] != sha256:
            return Fault(FindingKind.IMAGE_SHA256, f"{name!r}: it is named by its sha256, and that is {sha256}")
        told = read_provenance(data) if is_output else None
        facts: dict[str, Any] = {
            "num_bytes": len(data),
            "sha256": sha256,
            "told": told and {key: told[key] for key in _KEPT if key in told},
        }
        wants_hash = is_output and self._config.near_duplicates is not None
        if not self._config.has_decode and not wants_hash:
            return Facts(**facts)
        try:
            image = images.decode(data, max_pixels=self._config.max_image_pixels)
        except RowError as error:
            return Fault(FindingKind.IMAGE_UNDECODABLE, f"{name!r}: {error.message}")
        pixels = hashlib.blake2b(image.tobytes(), digest_size=16, salt=b"%dx%d" % image.size).digest()
        return Facts(**facts, size=image.size, pixels=pixels, phash=_perceptual_hash(image) if wants_hash else None)


def _perceptual_hash(image: Any) -> int:
    from pipelines.scores.phash import perceptual_hash

    return perceptual_hash(image)
