"""The condition cache: everything that a guidance branch computes once, and not once per step. Knows no guidance.

Prefix tokens see neither the noise nor the time, and a time token sees only the prefix and itself. So one prefill gives
the keys and values of the prefix and of the time tokens of *all* steps, exactly; what is left of a denoising step is a
dense pass over the image tokens. A branch that begins like another goes on from the other's keys and values.

Tensor suffixes: P prefix tokens, T time steps, L layers, G key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from omnigen_actor.model.attention import attend
from omnigen_actor.model.blocks import Rotary
from omnigen_actor.model.prompt import ImageSpan, Segment, Text
from omnigen_actor.model.transformer import Transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One guidance branch of one row.

    ``parts``: keys and values of the prefix, one stretch after the other, each (L, 2, P, G, D); the first ones may be
    another condition's. ``times``: those of each step's time token, (L, 2, T, G, D). ``long``: the rotary regime that
    they were computed in; the image tokens must use the same. ``num_bytes``: what it holds beside what it shares.
    """

    parts: tuple[Tensor, ...]
    times: Tensor
    long: bool
    num_bytes: int

    @property
    def num_prefix(self) -> int:
        """Tokens of the prefix."""
        return sum(part.shape[2] for part in self.parts)

    def image_rotary(self, transformer: Transformer, num_image_tokens: int) -> Rotary:
        """Rotary tables of the image tokens, which follow the time token: positions P+1 … P+N."""
        return transformer.rotary(self.num_prefix + 1, num_image_tokens, long=self.long)

    def first(self, num_tokens: int) -> tuple[Tensor, ...]:
        """The first tokens of the prefix, as views."""
        found = []
        for part in self.parts:
            taken = min(part.shape[2], num_tokens)
            if taken:
                found.append(part[:, :, :taken])
            num_tokens -= taken
        return tuple(found)


class Shared(NamedTuple):
    """What a prompt has in common with another: how many of its first segments and tokens, and what is left to do."""

    num_tokens: int
    rest: tuple[Segment, ...]


def share(ours: Sequence[Segment], theirs: Sequence[Segment], image_sizes: Sequence[int]) -> Shared:
    """How far ``ours`` is ``theirs``, token by token; ``image_sizes`` are the tokens of each image."""
    num_tokens = 0
    for position, (our, their) in enumerate(zip(ours, theirs, strict=False)):
        if our == their:
            num_tokens += image_sizes[our.index] if isinstance(our, ImageSpan) else len(our.ids)
            continue
        if isinstance(our, Text) and isinstance(their, Text):
            same = _num_same(our.ids, their.ids)
            rest = (Text(our.ids[same:]),) if same < len(our.ids) else ()
            return Shared(num_tokens + same, (*rest, *ours[position + 1 :]))
        return Shared(num_tokens, tuple(ours[position:]))
    return Shared(num_tokens, tuple(ours[len(theirs) :]))


def _num_same(ours: Sequence[int], theirs: Sequence[int]) -> int:
    pairs = zip(ours, theirs, strict=False)
    return next((index for index, (our, their) in enumerate(pairs) if our != their), min(len(ours), len(theirs)))


class _Span(NamedTuple):
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
    past: Sequence[Tensor] = (),
) -> Condition:
    """Run the prefix and all time tokens of one branch through the blocks, once.

    ``image_latents``: (channels, h, w) of each input image, by the segments' index; ``times_T``: the time of each step;
    ``long``: whether the whole sequence, image tokens included, is in the long rotary regime; ``past``: keys and values
    of what comes before ``segments``, of the same regime.
    """
    num_past = sum(part.shape[2] for part in past)
    pieces = [_embed(transformer, segment, image_latents) for segment in segments]
    spans = _spans(segments, pieces, num_past)
    num_prefix = spans[-1].stop if spans else num_past
    hidden = torch.cat([*pieces, transformer.time_tokens(times_T)])
    rotary = _rotary(transformer, num_past, num_prefix, len(times_T), long=long)
    cache = _run(transformer, hidden, rotary, spans, past)
    own = num_prefix - num_past
    return Condition(
        parts=(*past, cache[:, :, :own]) if own else tuple(past),
        times=cache[:, :, own:],
        long=long,
        num_bytes=cache.nbytes,
    )


def _embed(transformer: Transformer, segment: Segment, image_latents: Sequence[Tensor]) -> Tensor:
    if isinstance(segment, Text):
        return transformer.embed_text(segment.ids)
    return transformer.embed_input(image_latents[segment.index])


def _spans(segments: Sequence[Segment], pieces: Sequence[Tensor], start: int) -> list[_Span]:
    spans: list[_Span] = []
    for segment, piece in zip(segments, pieces, strict=True):
        spans.append(_Span(start, start + len(piece), isinstance(segment, ImageSpan)))
        start = spans[-1].stop
    return spans


def _rotary(transformer: Transformer, first: int, num_prefix: int, num_steps: int, *, long: bool) -> Rotary:
    """Of the prefix from ``first`` on, then of the time tokens, which all stand at the position after it."""
    cos, sin = transformer.rotary(first, num_prefix + 1 - first, long=long)
    return _repeat_last(cos, num_steps), _repeat_last(sin, num_steps)


def _repeat_last(table: Tensor, count: int) -> Tensor:
    return torch.cat((table[:-1], table[-1:].expand(count, -1, -1)))


def _run(
    transformer: Transformer, hidden: Tensor, rotary: Rotary, spans: Sequence[_Span], past: Sequence[Tensor]
) -> Tensor:
    """Keys and values of every layer, (L, 2, own tokens, G, D). The last layer's output is needed by nobody."""
    config, blocks = transformer.config, transformer.blocks
    num_past = sum(part.shape[2] for part in past)
    num_prefix = spans[-1].stop if spans else num_past
    masks = [_causal_mask(span, transformer.device) for span in spans]
    time_mask = _time_mask(num_prefix, num_past + len(hidden) - num_prefix, transformer.device)
    cache = hidden.new_empty(config.num_layers, 2, len(hidden), config.num_kv_heads, config.head_size)
    for layer in range(config.num_layers):
        query, cache[layer, 0], cache[layer, 1] = blocks.project(layer, hidden, rotary)
        if layer == config.num_layers - 1:
            break
        key, value = (torch.cat([*(part[layer, i] for part in past), cache[layer, i]]) for i in (0, 1))
        parts = [
            attend(query[span.start - num_past : span.stop - num_past], key[: span.stop], value[: span.stop], mask)
            for span, mask in zip(spans, masks, strict=True)
        ]
        parts.append(attend(query[num_prefix - num_past :], key, value, time_mask))
        hidden = blocks.finish(layer, hidden, torch.cat(parts))
    return cache


def _causal_mask(span: _Span, device: torch.device) -> Tensor | None:
    """Text sees what came before and itself, an image all of itself: no mask."""
    if span.is_image:
        return None
    return torch.ones(span.stop - span.start, span.stop, dtype=torch.bool, device=device).tril(span.start)


def _time_mask(num_prefix: int, num_steps: int, device: torch.device) -> Tensor:
    """Each time token sees the prefix and itself, and none of the other steps'."""
    prefix = torch.ones(num_steps, num_prefix, dtype=torch.bool, device=device)
    return torch.cat((prefix, torch.eye(num_steps, dtype=torch.bool, device=device)), dim=1)
