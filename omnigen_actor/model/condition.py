"""The condition cache: everything that a guidance branch computes once, and not once per step. Knows no guidance.

Prefix tokens see neither the noise nor the time, and a time token sees only the prefix and itself. So one prefill gives
the keys and values of the prefix and of the time tokens of *all* steps, exactly; what is left of a denoising step is a
dense pass over the image tokens. No mask over the whole sequence is ever built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from omnigen_actor.model.prompt import ImageSpan, Segment, Text
from omnigen_actor.model.transformer import Transformer, attention


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One guidance branch of one row.

    ``prefix``: keys and values, (layers, 2, P, G, D). ``times``: those of each step's time token, (layers, 2, T, G, D).
    ``long``: the rotary regime that they were computed in; the image tokens must use the same.
    """

    prefix: Tensor
    times: Tensor
    long: bool

    def image_rotary(self, transformer: Transformer, num_image_tokens: int) -> tuple[Tensor, Tensor]:
        """Rotary tables of the image tokens, which follow the time token: positions P+1 … P+N."""
        first = self.prefix.shape[2] + 1
        positions = torch.arange(first, first + num_image_tokens, device=transformer.device)
        return transformer.rotary(positions, long=self.long)

    def keys_and_values(self, layer: int, step: int, key_NGD: Tensor, value_NGD: Tensor) -> tuple[Tensor, Tensor]:
        """What the image tokens attend to at one step: prefix, this step's time token, themselves."""
        prefix, time = self.prefix[layer], self.times[layer, :, step : step + 1]
        return torch.cat((prefix[0], time[0], key_NGD)), torch.cat((prefix[1], time[1], value_NGD))


@dataclass(frozen=True, slots=True)
class _Span:
    """Positions [start, stop) of the prefix that are one text run or one image."""

    start: int
    stop: int
    is_image: bool


def prefill(
    transformer: Transformer,
    segments: Sequence[Segment],
    image_latents: Sequence[Tensor],
    times_T: Tensor,
    *,
    long: bool,
) -> Condition:
    """Run the prefix and all time tokens of one branch through the blocks, once.

    ``image_latents``: (channels, h, w) of each input image, by the segments' index; ``times_T``: the time of each step;
    ``long``: whether the whole sequence, image tokens included, is in the long rotary regime.
    """
    pieces = [_embed(transformer, segment, image_latents) for segment in segments]
    spans = _spans(segments, pieces)
    num_prefix, num_steps = spans[-1].stop, len(times_T)
    hidden = torch.cat([*pieces, transformer.time_tokens(times_T)])
    positions = torch.arange(num_prefix + num_steps, device=transformer.device).clamp(max=num_prefix)
    rotary = transformer.rotary(positions, long=long)
    cache = _run(transformer, hidden, rotary, spans, num_steps)
    return Condition(
        prefix=cache[:, :, :num_prefix].contiguous(), times=cache[:, :, num_prefix:].contiguous(), long=long
    )


def _embed(transformer: Transformer, segment: Segment, image_latents: Sequence[Tensor]) -> Tensor:
    if isinstance(segment, Text):
        return transformer.embed_text(segment.ids)
    return transformer.embed_latent(image_latents[segment.index], is_input=True)


def _spans(segments: Sequence[Segment], pieces: Sequence[Tensor]) -> list[_Span]:
    spans: list[_Span] = []
    start = 0
    for segment, piece in zip(segments, pieces, strict=True):
        spans.append(_Span(start, start + len(piece), isinstance(segment, ImageSpan)))
        start = spans[-1].stop
    return spans


def _run(
    transformer: Transformer, hidden: Tensor, rotary: tuple[Tensor, Tensor], spans: Sequence[_Span], num_steps: int
) -> Tensor:
    """Keys and values of every layer, (layers, 2, P + T, G, D). The last layer's output is needed by nobody."""
    masks = [_causal_mask(span, transformer.device) for span in spans]
    time_mask = _time_mask(spans[-1].stop, num_steps, transformer.device)
    cache: list[Tensor] = []
    for layer in range(transformer.config.num_layers):
        query, key, value = transformer.project_qkv(layer, hidden, rotary)
        cache.append(torch.stack((key, value)))
        if layer < transformer.config.num_layers - 1:
            parts = [
                attention(query[span.start : span.stop], key[: span.stop], value[: span.stop], mask)
                for span, mask in zip(spans, masks, strict=True)
            ]
            parts.append(attention(query[spans[-1].stop :], key, value, time_mask))
            hidden = transformer.finish_layer(layer, hidden, torch.cat(parts))
    return torch.stack(cache)


def _causal_mask(span: _Span, device: torch.device) -> Tensor | None:
    """Text sees what came before and itself, an image all of itself: no mask."""
    if span.is_image:
        return None
    return torch.ones(span.stop - span.start, span.stop, dtype=torch.bool, device=device).tril(span.start)


def _time_mask(num_prefix: int, num_steps: int, device: torch.device) -> Tensor:
    """Each time token sees the prefix and itself, and none of the other steps'."""
    prefix = torch.ones(num_steps, num_prefix, dtype=torch.bool, device=device)
    return torch.cat((prefix, torch.eye(num_steps, dtype=torch.bool, device=device)), dim=1)
