"""What a word on the command line means as a scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from omnigen_actor.errors import ConfigError
from pipelines.scores import near, registry
from pipelines.scores.scorer import Picture, find_factory

WITHOUT_WEIGHTS = ("statistics", "copy_through", "phash", "edges")


class OwnScorer:
    """Someone's own."""

    name = "own"
    version = 3
    columns = pa.schema([("own", pa.int64())])
    needs_inputs = False
    num_gpus = 0.0
    batch_size = 1

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def __call__(self, pictures: Sequence[Picture]) -> list[dict[str, object]]:
        return [{"own": 1} for _ in pictures]


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_a_scorer_without_weights_opens_by_its_name(name: str) -> None:
    spec = registry.parse(name, device="cuda")
    assert "device" not in spec.options
    assert spec.open().name == spec.name == name


def test_every_factory_of_the_package_exists() -> None:
    pytest.importorskip("transformers")
    for known in registry.KNOWN.values():
        module = known.factory.partition(":")[0].replace(".", "/") + ".py"
        if (Path(__file__).parent.parent / module).exists():
            find_factory(known.factory)


def test_a_model_and_a_device_are_options() -> None:
    spec = registry.parse("clip:openai/clip-vit-base-patch32", device="cuda")
    assert spec.name == "clip"
    assert spec.options == {"model": "openai/clip-vit-base-patch32", "device": "cuda"}


def test_the_name_in_the_store_may_be_another() -> None:
    spec = registry.parse("large=clip:/models/a=b")
    assert (spec.name, spec.options["model"]) == ("large", "/models/a=b")
    assert registry.parse("clip:/models/a=b").name == "clip"


def test_a_default_is_the_same_as_the_value_that_is_written_out() -> None:
    assert registry.parse("near_duplicates") == registry.parse("near_duplicates:4")
    assert registry.parse("edges") == registry.parse("edges:condition")
    assert near.spec(6) == registry.parse("near_duplicates:6")


def test_anyones_class_opens_under_its_own_name() -> None:
    spec = registry.parse(f"{__name__}:OwnScorer", device="cuda")
    assert (spec.name, spec.version) == ("own_scorer", "3")
    scorer = spec.open()
    assert isinstance(scorer, OwnScorer)
    assert scorer.options == {"device": "cuda"}


def test_near_duplicates_come_last() -> None:
    specs = registry.parse_all(["near_duplicates", "statistics", "phash"])
    assert [spec.name for spec in specs] == ["statistics", "phash", "near_duplicates"]
    assert [registry.is_near_duplicates(spec) for spec in specs] == [False, False, True]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("stats", "did you mean statistics"),
        ("clp:openai/clip", "did you mean clip"),
        ("clp:ViT", "did you mean clip"),
        ("xyz", "known: statistics, copy_through"),
        ("", "known: statistics"),
        ("clip", "write clip:MODEL"),
        ("clip:", "write clip:MODEL"),
        ("statistics:1", "takes nothing after the name"),
        ("near_duplicates:far", "must be a whole number"),
        ("near_duplicates:11", "between 0 and 10"),
        ("edges:", "needs a tasks"),
        ("phash=clip:x", "is the name of another scorer"),
        ("My Clip=clip:x", "must be small letters"),
        ("json:Nothing", "package.module:Class"),
    ],
)
def test_what_is_no_scorer_is_told_with_a_remedy(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        registry.parse(text)


def test_a_name_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="named twice"):
        registry.parse_all(["clip:a/b", "clip:c/d"])
    assert len(registry.parse_all(["clip:a/b", "other=clip:c/d"])) == 2
