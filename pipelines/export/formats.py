"""The formats by their names. Knows nothing of what they do."""

from __future__ import annotations

from pipelines.export.config import ExportConfig
from pipelines.export.files import Files
from pipelines.export.format import Format
from pipelines.export.hf import HuggingFace
from pipelines.export.omnigen import OmniGen
from pipelines.export.omnigen2 import OmniGen2
from pipelines.export.pairs import Pairs
from pipelines.export.webdataset import WebDataset


def format_of(config: ExportConfig) -> Format:
    """The format that the settings name."""
    formats: tuple[Format, ...] = (
        HuggingFace(),
        Pairs(),
        WebDataset(),
        OmniGen(),
        OmniGen2(config.path_prefix or ""),
        Files(),
    )
    return next(one for one in formats if one.name == config.format)
