"""CLIP scores with a tiny random model, through the path of a real one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from omnigen_actor.checkpoint.cache import VARIABLE
from omnigen_actor.errors import ConfigError, ModelError
from pipelines.scores.clip import ClipScorer, open_clip, text_of
from pipelines.scores.prepared import prepare
from pipelines.scores.registry import parse
from pipelines.scores.weights import find_weights
from tests.scoring_models import colours, picture, save_classifier, save_clip, save_siglip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def scorer(model: Path) -> ClipScorer:
    return open_clip({"model": str(model), "device": "cpu"})


def test_cosines_are_those_of_the_model_itself(model: Path, scorer: ClipScorer) -> None:
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

    one = picture(1, instruction="a red boat")
    network = CLIPModel.from_pretrained(model)
    pixels = CLIPImageProcessorPil.from_pretrained(model)(images=[one.image], return_tensors="pt")
    tokens = PreTrainedTokenizerFast.from_pretrained(model)(["a red boat"], return_tensors="pt")
    tokens.pop("token_type_ids", None)
    with torch.inference_mode():
        found = network(**tokens, **pixels)
        expected = float(found.logits_per_image[0, 0] / network.logit_scale.exp())
    assert scorer([one])[0]["clip"] == pytest.approx(expected, abs=1e-5)


def test_siglip_reads_its_padding(tmp_path: Path) -> None:
    import torch
    from transformers import PreTrainedTokenizerFast, SiglipImageProcessorPil, SiglipModel

    folder, one = save_siglip(tmp_path), picture(1, instruction="a red boat")
    network = SiglipModel.from_pretrained(folder)
    pixels = SiglipImageProcessorPil.from_pretrained(folder)(images=[one.image], return_tensors="pt")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = tokenizer(["a red boat"], padding="max_length", max_length=16, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        found = network(input_ids=ids, **pixels)
        expected = float((found.image_embeds * found.text_embeds).sum())
    assert open_clip({"model": str(folder), "device": "cpu"})([one])[0]["clip"] == pytest.approx(expected, abs=1e-5)


def test_an_image_is_nearest_to_itself_among_its_inputs(scorer: ClipScorer) -> None:
    one = picture(1, inputs=(colours(2), colours(1)))
    other = picture(1, inputs=(colours(2),))
    (same,), (far,) = scorer([one]), scorer([other])
    assert same["clip_image"] == pytest.approx(1, abs=1e-5)
    assert -1 <= far["clip_image"] < 0.99999


def test_inputs_of_different_numbers_stay_with_their_pictures(scorer: ClipScorer) -> None:
    pictures = [picture(1), picture(2, inputs=(colours(3), colours(4))), picture(3, inputs=(colours(3),))]
    together = scorer(pictures)
    alone = [scorer([one])[0] for one in pictures]
    assert together[0]["clip_image"] is None
    assert together[2]["clip_image"] == pytest.approx(1, abs=1e-5)
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_a_picture_without_a_text_has_no_cosine(scorer: ClipScorer) -> None:
    assert scorer([picture(1, instruction="", prompt="<img><|image_1|></img>")])[0]["clip"] is None


def test_a_long_text_is_cut(scorer: ClipScorer) -> None:
    assert isinstance(scorer([picture(1, instruction="boat " * 500)])[0]["clip"], float)


@pytest.mark.parametrize(
    ("instruction", "prompt", "expected"),
    [
        ("make it blue", "<img><|image_1|></img> make it blue", "make it blue"),
        ("a <img><|image_1|></img> boat", "", "a boat"),
        ("", "Remove the noise from this image: <img><|image_1|></img>.", "Remove the noise from this image: ."),
    ],
)
def test_the_text_has_no_placeholders(instruction: str, prompt: str, expected: str) -> None:
    assert text_of(picture(instruction=instruction, prompt=prompt)) == expected


def test_a_classifier_is_no_clip(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"can't be loaded|no text and image vectors"):
        open_clip({"model": str(save_classifier(tmp_path, "a", "b")), "device": "cpu"})


def test_weights_that_are_pickled_are_refused(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        find_weights(str(folder))


def test_a_model_with_whole_numbers_among_its_tensors_is_fetched_as_it_is(
    model: Path, scorer: ClipScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published CLIPs have their indices of positions in the file."""
    import torch
    from safetensors.torch import load_file, save_file

    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    one = picture(1, instruction="a red boat")
    assert open_clip({"model": f"file://{folder}", "device": "cpu"})([one]) == scorer([one])


def test_weights_that_are_cut_off_are_refused(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelError, match="whole"):
        find_weights(str(folder))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        find_weights(str(tmp_path))


def test_a_hub_id_that_is_not_here_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"nobody/nothing.*the hub did not give it") as caught:
        find_weights("nobody/nothing")
    assert len(str(caught.value).splitlines()) == 1


def test_the_identity_of_a_model_is_its_bytes_and_not_its_place(model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    assert find_weights(str(copy)).sha256 == find_weights(str(model)).sha256
    (copy / "preprocessor_config.json").write_text("{}")
    assert find_weights(str(copy)).sha256 != find_weights(str(model)).sha256


def test_other_weights_than_those_of_the_driver_are_refused(model: Path, tmp_path: Path) -> None:
    prepared = prepare(parse(f"clip:{model}"))
    assert prepared.spec.options["weights_sha256"] == find_weights(str(model)).sha256
    assert prepared.needs_inputs
    assert prepared.num_gpus == 1
    other = save_clip(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="where the job was started"):
        open_clip({**prepared.spec.options, "model": str(other)})
    assert prepared.on("cpu").open().name == "clip"


def test_a_label_is_for_classifiers_alone(model: Path) -> None:
    with pytest.raises(ConfigError, match="takes no label"):
        prepare(parse(f"clip:{model}#boat"))
