"""How well an image fits its text, and how near it is to its input images, by a CLIP or SigLIP model. Knows no store.

Cosines of the two towers' vectors, as CLIPScore has them without its factor (Hessel et al., 2021, arXiv:2104.08718).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from omnigen_actor import placeholders
from omnigen_actor.errors import ModelError
from pipelines.scores.scorer import Picture, Score

if TYPE_CHECKING:
    import torch


class ClipScorer:
    """``clip``: cosine of image and text, −1 to 1; ``clip_image``: the highest of image and an input image.

    The text is the row's instruction without placeholders, or its prompt where it has none; longer ones are cut to what
    the model reads (77 tokens in CLIP, 64 in SigLIP). Null: no text, or no input images.
    """

    name = "clip"
    columns = pa.schema([("clip", pa.float32()), ("clip_image", pa.float32())])
    needs_inputs = True
    num_gpus = 1.0
    batch_size = 32

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Options as in ``open_pretrained``. Raises ModelError."""
        from transformers import AutoModel

        from pipelines.scores.pretrained import open_pretrained

        self._model = open_pretrained(options, AutoModel, has_text=True)
        network = self._model.network
        if not (hasattr(network, "get_text_features") and hasattr(network, "get_image_features")):
            raise ModelError(f"{self._model.label} has no text and image vectors: choose a CLIP or SigLIP model")
        # SigLIP learned with its padding in sight, whatever a tokenizer says.
        is_siglip = str(network.config.model_type).startswith("siglip")
        self._read = ("input_ids",) if is_siglip else ("input_ids", "attention_mask")
        self._num_tokens = int(network.config.text_config.max_position_embeddings)

    def __call__(self, pictures: Sequence[Picture]) -> list[Score]:
        """One dict for each picture."""
        texts = [text_of(picture) for picture in pictures]
        text_ND = self._text_vectors(texts)
        image_ND = self._image_vectors([picture.image for picture in pictures])
        input_MD = self._image_vectors([image for picture in pictures for image in picture.inputs])
        found: list[Score] = []
        first = 0
        for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            own_ID = input_MD[first : first + len(picture.inputs)]
            first += len(picture.inputs)
            found.append(
                {
                    "clip": float(image_ND[index] @ text_ND[index]) if text else None,
                    "clip_image": float((own_ID @ image_ND[index]).max()) if len(own_ID) else None,
                }
            )
        return found

    def _text_vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """Of length 1. Always padded to the model's length, which SigLIP needs: a text's vector hangs on no other."""
        import torch

        model = self._model
        tokens = model.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._num_tokens, return_tensors="pt"
        )
        read = {name: tokens[name].to(model.device) for name in self._read if name in tokens}
        with torch.inference_mode():
            return _directions(model.network.get_text_features(**read))

    def _image_vectors(self, images: Sequence[Any]) -> torch.Tensor:
        import torch

        chunks = [images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size)]
        found = [_directions(self._model.run(self._model.network.get_image_features, chunk)) for chunk in chunks]
        return torch.cat(found) if found else torch.empty(0, 1)


def open_clip(options: Mapping[str, Any]) -> ClipScorer:
    """A scorer with any CLIP or SigLIP model of transformers."""
    return ClipScorer(options)


def text_of(picture: Picture) -> str:
    """What an image is compared with."""
    return _without_placeholders(picture.instruction) or _without_placeholders(picture.prompt)


def _without_placeholders(text: str) -> str:
    text = placeholders.normalise(text)
    for number in placeholders.numbers(text):
        text = text.replace(placeholders.placeholder(number), " ")
    return " ".join(text.split())


def _directions(found: Any) -> torch.Tensor:
    """Vectors of length 1, on the CPU. Newer versions of transformers wrap what the towers give."""
    import torch

    vectors = getattr(found, "pooler_output", found)
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu()
