"""The trained model of the package: small, whole, what its papers say it is, and exact in diffusers' own classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from omnigen_actor.checkpoint.fetching import MINI, MINI_FOLDER
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.engines import verify_model
from omnigen_actor.types import Request
from pipelines.world import captions
from pipelines.world.evaluation import read_gates
from pipelines.world.presets import SMALL
from tests.reference import Reference, relative_error

ROOT = Path(__file__).parent.parent
GATES = ROOT / "examples" / "mini" / "gates.json"
EVALUATION = ROOT / "benchmarks" / "results" / "mini-evaluation.json"
MAX_BYTES = 15_000_000


def test_the_mini_model_is_small_and_of_safetensors_alone() -> None:
    files = [path for path in MINI_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".md"}


def test_gates_evaluation_and_card_are_of_these_very_weights() -> None:
    sha256 = verify_model(MINI)
    assert read_gates(GATES.read_text(encoding="utf-8")).model_sha256 == sha256
    assert json.loads(EVALUATION.read_text(encoding="utf-8"))["model_sha256"] == sha256
    assert sha256 in (MINI_FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_gates_are_met_by_the_evaluation() -> None:
    table = json.loads(EVALUATION.read_text(encoding="utf-8"))["tasks"]
    gates = read_gates(GATES.read_text(encoding="utf-8")).gates
    assert [gate.complaint(table) for gate in gates if not gate.is_met(table)] == []
    assert {gate.variant for gate in gates} == {"right", "wrong prompt", "ceiling"}


def test_a_folder_of_the_same_name_is_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(MINI_FOLDER, tmp_path / "mini")
    (tmp_path / "mini" / "model_index.json").unlink()
    shutil.rmtree(tmp_path / "mini" / "transformer")
    monkeypatch.chdir(tmp_path)
    assert len(verify_model("mini")) == 64
    with pytest.raises(ValueError, match=r"\./mini"):
        verify_model("./mini")


@pytest.fixture(scope="module")
def reference() -> Reference:
    """The stock classes on the package's files."""
    return Reference(MINI_FOLDER)


def test_every_word_of_its_world_is_in_its_vocabulary(reference: Reference) -> None:
    tokenizer = reference.processor.text_tokenizer
    words = sorted(captions.vocabulary(SMALL))
    assert tokenizer.unk_token_id not in tokenizer(" ".join(words), add_special_tokens=False).input_ids


MARKS = [f"<img><|image_{number}|></img>" for number in (1, 2, 3)]
GUIDED = {"guidance_scale": 2.0, "img_guidance_scale": 1.5, "max_input_image_size": 64}


def test_the_engine_equals_the_stock_classes_in_both_rotary_regimes(reference: Reference, picture) -> None:
    edit, examples = f"{MARKS[0]} Make the red circle blue.", " ".join(f"{mark} Output:" for mark in MARKS)
    three = tuple(picture(64, 64, seed) for seed in (1, 2, 3))
    wave = [
        Request(id="text", prompt="A large red circle on the left.", width=64, height=64, steps=4, seed=1),
        Request(id="edit", prompt=edit, images=(picture(64, 64),), steps=3, seed=2, **GUIDED),
        Request(id="examples", prompt=examples, images=three, width=64, height=64, steps=3, seed=3, **GUIDED),
    ]
    engine = OmniGenEngine.from_pretrained(MINI, EngineSettings(device="cpu", dtype="float32"))
    planned = [engine._waves._preparer.plan(request) for request in wave]
    branches = [branch for one in planned for branch in (one.full, one.images_only, one.negative) if branch]
    assert {branch.long for branch in branches} == {False, True}
    for request, latent in zip(wave, engine.latents(wave), strict=True):
        assert relative_error(latent, reference.latent(request)) <= 1e-5
    engine.close()
