"""The images of an example: read, compared with what its record says of them, and made fit to be given away.

Knows no formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from omnigen_actor import images, store, uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import RowError
from pipelines.config import InputConfig
from pipelines.export.examples import Example, Input
from pipelines.export.format import ImageFile, Loaded, Refusal
from pipelines.export.plain_files import plain_extension

_MAX_OUTPUT_BYTES = 2**30
_NO_LIMIT = 2**40  # it was checked before


@dataclass(frozen=True, slots=True)
class ReadImages:
    """Reads the images of examples from the store and from where their inputs lie; ``allowed`` is what these may be."""

    store_root: str
    inputs: InputConfig
    allowed: Allowed

    def __call__(self, examples: Sequence[Example]) -> list[Loaded | Refusal]:
        """Each example with its images, or why it is to be left out. What examples share is read once, but outputs.

        Raises UriFailed where the store itself can't be read.
        """
        with ThreadPoolExecutor(max(1, self.inputs.fetch_threads), thread_name_prefix="export") as pool:
            inputs = list(dict.fromkeys(one for example in examples for one in example.inputs))
            chosen = list(dict.fromkeys(_chosen(example) for example in examples if example.pair))
            found: dict[Input | _Output, ImageFile | Refusal] = {}
            found |= zip(inputs, pool.map(self._input, inputs), strict=True)
            found |= zip(chosen, pool.map(self._output, chosen), strict=True)
            outputs = pool.map(self._output, map(_output, examples))
            return [_joined(example, found, output) for example, output in zip(examples, outputs, strict=True)]

    def _output(self, wanted: _Output) -> ImageFile | Refusal:
        key = wanted.key
        if key not in (store.image_key(wanted.id, wanted.sample, extension) for extension in wanted.extensions):
            return Refusal("bad_key", f"its record names {key!r}, which is not its place")
        return self._own(Input(uri.join(self.store_root, key), wanted.sha256, is_own=True), "image")

    def _input(self, wanted: Input) -> ImageFile | Refusal:
        if wanted.is_own:
            return self._own(wanted, "input")
        try:
            data = uri.read_bytes(
                wanted.uri,
                max_bytes=self.inputs.max_image_bytes,
                timeout_s=self.inputs.fetch_timeout_s,
                retries=self.inputs.fetch_retries,
                allowed=self.allowed,
            )
            _check(data, wanted)
            return publish(data, self.inputs.max_image_pixels)
        except (_Other, RowError, uri.Refused, uri.UriTooLarge, OSError) as error:
            name = uri.redact(wanted.uri)
            return Refusal(_reason(error), str(error) if name in str(error) else f"{name}: {error}")

    def _own(self, wanted: Input, what: str) -> ImageFile | Refusal:
        """An image of the store, byte for byte: what is in its metadata is ours."""
        key = wanted.uri.removeprefix(self.store_root).lstrip("/")
        try:
            data = uri.read_bytes(wanted.uri, max_bytes=_MAX_OUTPUT_BYTES)
            _check(data, wanted)
        except uri.UriNotFound:
            return Refusal(f"{what}_missing", f"{key}: it is not in the store")
        except (_Other, uri.UriTooLarge) as error:
            return Refusal(f"{what}_changed", f"{key}: {error}")
        return ImageFile(data=data, extension=f".{key.rpartition('.')[2]}", sha256=wanted.sha256, key=key)


class _Output(NamedTuple):
    """An image that was made: by its key, which is that of its id and sample with one of the ``extensions``."""

    id: str
    sample: int
    key: str
    sha256: str
    extensions: tuple[str, ...]


def _output(example: Example) -> _Output:
    extension = images.EXTENSIONS.get(example.image_format, "")
    return _Output(example.id, example.sample, example.output_key, example.sha256, (extension,))


def _chosen(example: Example) -> _Output:
    assert example.pair
    sample, key, sha256, *_ = example.pair
    return _Output(example.id, sample, key, sha256, tuple(images.EXTENSIONS.values()))


class _Other(ValueError):  # noqa: N818
    """A file whose bytes are not those that the record tells of."""


def _check(data: bytes, wanted: Input) -> None:
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != wanted.sha256:
        raise _Other(f"its bytes are others now: sha256 {sha256}, and the record has {wanted.sha256}")


def _reason(error: Exception) -> str:
    match error:
        case _Other():
            return "input_changed"
        case RowError():
            return "input_undecodable"
        case uri.Refused():
            return "input_refused"
        case uri.UriTooLarge():
            return "input_too_large"
        case uri.UriNotFound():
            return "input_missing"
        case _:
            return "input_unreadable"


def _joined(
    example: Example, found: dict[Input | _Output, ImageFile | Refusal], output: ImageFile | Refusal
) -> Loaded | Refusal:
    inputs = []
    for wanted in example.inputs:
        one = found[wanted]
        if isinstance(one, Refusal):
            return one
        inputs.append(one)
    if isinstance(output, Refusal):
        return output
    chosen = found[_chosen(example)] if example.pair else None
    if isinstance(chosen, Refusal):
        return chosen
    return Loaded(example=example, inputs=tuple(inputs), output=output, chosen=chosen)


def publish(data: bytes, max_pixels: int) -> ImageFile:
    """An input image as strangers may have it: the file itself where it is nothing but an 8-bit picture, else a PNG.

    EXIF (place, time, camera), comments and thumbnails stay behind. A re-encoded picture is what the model read before
    it was fitted: turned as its EXIF says, transparency over white. Raises RowError for what does not decode.
    """
    picture = images.decode(data, max_pixels=max_pixels)
    extension = plain_extension(data)
    if extension is None:
        data, extension = images.encode(picture, "png"), ".png"
    return ImageFile(data=data, extension=extension, sha256=hashlib.sha256(data).hexdigest())


def as_png(file: ImageFile) -> ImageFile:
    """The same pixels as PNG, of a file that was read here."""
    if file.extension == ".png":
        return file
    data = images.encode(images.decode(file.data, max_pixels=_NO_LIMIT), "png")
    return ImageFile(data=data, extension=".png", sha256=hashlib.sha256(data).hexdigest(), key=file.key)
