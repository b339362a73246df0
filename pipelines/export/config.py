"""ExportConfig: every setting of an export, each default in one place. Knows no argv and no files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from omnigen_actor.errors import ConfigError
from pipelines.config import Checked, InputConfig, option

FORMATS = ("hf", "pairs", "webdataset", "omnigen", "omnigen2", "files")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a selection or a score may be called: they are folders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig(Checked):
    """What is exported, and how."""

    format: str = option(
        "hf",
        "hf (Parquet with images in it), pairs (the same of preference pairs), webdataset (tars), omnigen or omnigen2 "
        "(their training files), or files (images and a table)",
        choices=FORMATS,
    )
    selection: str | None = option(None, "name of a selection of the store; default: all images, as the split train")
    scores: str | None = option(None, "names of scores of the store that become columns, with commas between them")
    shard_mib: int = option(
        256, "size of a shard in MiB, about, and with its inputs as large as the output", at_least=1, at_most=1024
    )
    path_prefix: str | None = option(
        None, "what the paths of omnigen2's rows begin with; default: nothing, for a training that starts in DEST"
    )
    max_failed: float = option(
        0.0,
        "largest share of images left out, in percent, that still exits with 0",
        at_least=0,
        at_most=100,
    )
    replace: bool = option(False, "remove the export that is in DEST first")
    inputs: InputConfig = field(default_factory=InputConfig)
    ray_address: str | None = option(None, "cluster to join; default: RAY_ADDRESS, else a local one")

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        for what, names in (("selection", [self.selection or "a"]), ("scores", self.score_names or ["a"])):
            wrong = next((name for name in names if not NAME.fullmatch(name)), None)
            if wrong is not None:
                raise ConfigError(f"{what}={wrong!r}: a name has letters, digits, `.`, `_` and `-`")
        if len(set(self.score_names)) < len(self.score_names):
            raise ConfigError(f"scores={self.scores!r}: names one of them twice")
        if self.has_pairs and self.selection is None:
            raise ConfigError("format='pairs': its pairs are those of a selection; name one that has them: selection")
        if self.has_pairs and self.scores is not None:
            raise ConfigError(f"scores={self.scores!r}: a pair has two images; leave it out: pairs have their margin")
        if self.path_prefix is not None and self.format != "omnigen2":
            raise ConfigError(
                f"path_prefix={self.path_prefix!r}: is for the format omnigen2, and this is {self.format}"
            )

    @property
    def has_pairs(self) -> bool:
        """Whether a row is a pair of images: a chosen one and a rejected one."""
        return self.format == "pairs"

    @property
    def score_names(self) -> list[str]:
        """The scores one by one."""
        return [name.strip() for name in self.scores.split(",")] if self.scores else []

    @property
    def command(self) -> str:
        """How this was asked for, without what tells of one machine: two exports elsewhere are the same bytes."""
        own = ("format", "selection", "scores", "shard_mib", "path_prefix")
        words = [f"--{name.replace('_', '-')} {value}" for name in own if (value := getattr(self, name)) is not None]
        places = ["--image-root FOLDER"] * bool(self.inputs.image_root) + ["--allow PLACE"] * len(self.inputs.allow)
        return " ".join(["python -m jobs.export STORE DEST", *words, *places])
