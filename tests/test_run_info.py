from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from omnigen_actor.errors import OutputError
from pipelines import run_info
from pipelines.config import EngineConfig, GenerationConfig, ImageConfig, InputConfig, RunConfig, WorkerConfig
from pipelines.run_info import History

CONFIG = RunConfig(model="fake", generation=GenerationConfig(steps=4))


def start(tmp_path: Path, config: RunConfig, run_id: str, model_sha256: str = "m1") -> History:
    made_with = run_info.fingerprint(config, model_sha256)
    history = run_info.read_history(str(tmp_path), made_with, allow_mixed=config.allow_mixed)
    run_info.write(str(tmp_path), made_with, history, run_id, config)
    return history


def test_history_grows_by_one_run_with_settings_and_versions(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    start(tmp_path, replace(CONFIG, workers=WorkerConfig(batch_size=3)), "r2")
    runs = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert [run["run_id"] for run in runs] == ["r1", "r2"]
    assert runs[1]["config"]["workers"]["batch_size"] == 3
    assert runs[0]["versions"]["numpy"]


@pytest.mark.parametrize("same", [GenerationConfig(steps=4, num_samples=3)])
def test_more_samples_are_the_same_store(tmp_path: Path, same: GenerationConfig) -> None:
    start(tmp_path, CONFIG, "r1")
    start(tmp_path, replace(CONFIG, generation=same), "r2")


def test_other_parameters_are_refused_naming_both_values_and_the_remedy(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(OutputError, match=r"steps=4 \(now 5\): choose another output") as caught:
        start(tmp_path, replace(CONFIG, generation=GenerationConfig(steps=5)), "r2")
    assert str(tmp_path) in str(caught.value)
    assert (tmp_path / "run.json").read_bytes() == before


def test_other_weights_are_refused(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    with pytest.raises(OutputError, match="model_sha256='m1'"):
        start(tmp_path, CONFIG, "r2", model_sha256="m2")


@pytest.mark.parametrize(
    ("engine", "change"),
    [
        (EngineConfig(fp8=True), r"approximations=\[\] \(now \['fp8'\]\)"),
        (EngineConfig(guidance_to=0.5), r"approximations=\[\] \(now \['guidance_interval=0-0.5'\]\)"),
        (EngineConfig(step_cache=0.1), r"approximations=\[\] \(now \['step_cache=0.1'\]\)"),
        (EngineConfig(vae_dtype="bfloat16"), r"vae_dtype='float32' \(now 'bfloat16'\)"),
        (EngineConfig(adapters=("a@0.5",)), r"adapters=\[\] \(now \['a@0.5'\]\)"),
        (EngineConfig(adapters=("a",)), r"adapters=\[\] \(now \['a@1'\]\)"),
    ],
)
@pytest.mark.parametrize("is_old", [False, True])
def test_an_exact_store_is_not_continued_with_an_approximation_however_old_it_is(
    tmp_path: Path, engine: EngineConfig, change: str, is_old: bool
) -> None:
    start(tmp_path, CONFIG, "r1")
    if is_old:
        forget_newer_settings(tmp_path)
    start(tmp_path, CONFIG, "r2")
    with pytest.raises(OutputError, match=change):
        start(tmp_path, replace(CONFIG, engine=engine), "r3")


def forget_newer_settings(tmp_path: Path) -> None:
    """Make run.json what the first version wrote."""
    path = tmp_path / "run.json"
    content = json.loads(path.read_text())
    for name in ("vae_dtype", "approximations", "adapters"):
        del content["fingerprint"][name]
    path.write_text(json.dumps(content))


def test_an_approximated_store_is_continued_with_the_same_and_with_no_other(tmp_path: Path) -> None:
    cached = replace(CONFIG, engine=EngineConfig(step_cache=0.1, adapters=("a", "b")))
    start(tmp_path, cached, "r1")
    start(tmp_path, cached, "r2")
    with pytest.raises(OutputError, match=r"step_cache=0\.1"):
        start(tmp_path, CONFIG, "r3")
    with pytest.raises(OutputError, match="adapters"):
        start(tmp_path, replace(CONFIG, engine=EngineConfig(step_cache=0.1, adapters=("b", "a"))), "r3")


def test_how_waves_are_packed_may_change(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    start(tmp_path, replace(CONFIG, engine=EngineConfig(wave_tokens=64, rows_per_wave=1, memory_gib=2.0)), "r2")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fingerprint": 1, "runs": []}', "\x00"])
def test_a_broken_file_is_an_output_error_of_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(OutputError, match=r"run\.json of") as caught:
        start(tmp_path, CONFIG, "r1")
    assert "\n" not in str(caught.value)


def test_no_credential_of_a_model_uri_is_kept(tmp_path: Path) -> None:
    engine = EngineConfig(adapters=("https://user:secret@example.com/lora?token=secret",))
    inputs = InputConfig(
        image_root="https://user:secret@example.com/images?token=secret", allow=("https://user:secret@example.com/",)
    )
    config = replace(CONFIG, model="https://user:secret@example.com/model?token=secret", engine=engine, inputs=inputs)
    place = "https://user:secret@example.com/rows.jsonl?token=secret"
    run_info.write(str(tmp_path), {}, History(), "r1", config, manifest=place, image_base=place)
    assert "secret" not in (tmp_path / "run.json").read_text()
    (run,) = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert run["manifest"] == run["image_base"] == "https://example.com/rows.jsonl"


def test_the_runs_are_read_back_with_what_makes_an_image(tmp_path: Path) -> None:
    config = replace(
        CONFIG, engine=EngineConfig(adapters=("a@0.5",), step_cache=0.1), workers=WorkerConfig(dtype="float32")
    )
    made_with = run_info.fingerprint(config, "m1")
    run_info.write(str(tmp_path), made_with, History(), "r1", config, manifest="/a/rows.jsonl", image_base="/b")
    assert run_info.read_runs(str(tmp_path)) == {"r1": run_info.PastRun(config, "/a/rows.jsonl", "/b")}


def test_a_run_of_an_older_version_is_read_with_defaults_and_without_provenance(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    content = json.loads((tmp_path / "run.json").read_text())
    (run,) = content["runs"]
    del run["manifest"], run["image_base"], run["config"]["engine"], run["config"]["images"]["embed_provenance"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    config = replace(CONFIG, images=ImageConfig(embed_provenance=False))
    assert run_info.read_runs(str(tmp_path)) == {"r1": run_info.PastRun(config, None, None)}


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{}", '{"runs": [{"run_id": "r", "config": {"workers": {"dtype": 1}}}]}']
)
def test_runs_that_cannot_be_read_are_an_output_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(OutputError, match=r"run\.json"):
        run_info.read_runs(str(tmp_path))


def test_a_store_goes_on_whether_its_files_say_how_they_were_made_or_not(tmp_path: Path) -> None:
    start(tmp_path, replace(CONFIG, images=ImageConfig(embed_provenance=False)), "r1")
    start(tmp_path, CONFIG, "r2")
    runs = run_info.read_runs(str(tmp_path))
    assert [run.config.images.embed_provenance for run in runs.values()] == [False, True]


def test_run_ids_differ() -> None:
    assert len({run_info.new_run_id() for _ in range(100)}) == 100


def test_an_adapter_is_the_same_however_its_weight_is_written(tmp_path: Path) -> None:
    first, second = (
        replace(CONFIG, engine=EngineConfig(adapters=names)) for names in (("a", "b@.5"), ("a@1", "b@0.50"))
    )
    start(tmp_path, first, "r1")
    start(tmp_path, second, "r2")


def test_a_refusal_tells_of_the_way_to_go_on(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    with pytest.raises(OutputError, match=r"another output, the same settings, or --allow-mixed: what is done stays"):
        start(tmp_path, CONFIG, "r2", model_sha256="m2")


MIXED = replace(CONFIG, generation=GenerationConfig(steps=5), allow_mixed=True)


def test_a_mixed_store_keeps_every_fingerprint_with_its_runs(tmp_path: Path) -> None:
    for run_id, config in (("r1", CONFIG), ("r2", CONFIG), ("r3", MIXED), ("r4", replace(CONFIG, allow_mixed=True))):
        start(tmp_path, config, run_id)
    content = json.loads((tmp_path / "run.json").read_text())
    earlier = [(one["fingerprint"]["steps"], one["run_ids"]) for one in content["earlier"]]
    assert earlier == [(4, ["r1", "r2"]), (5, ["r3"])]
    assert content["fingerprint"]["steps"] == 4
    assert [run["run_id"] for run in content["runs"]] == ["r1", "r2", "r3", "r4"]


def test_a_mixed_store_goes_on_with_the_settings_of_its_last_run_and_with_no_other(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    start(tmp_path, MIXED, "r2")
    history = start(tmp_path, replace(MIXED, allow_mixed=False), "r3")
    assert history.generations(MIXED.generation) == [CONFIG.generation]
    with pytest.raises(OutputError, match=r"steps=5 \(now 4\)"):
        start(tmp_path, CONFIG, "r4")


def test_another_number_of_samples_is_no_other_setting_of_a_mixed_store(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    start(tmp_path, replace(CONFIG, allow_mixed=True), "r2", model_sha256="m2")
    history = start(tmp_path, CONFIG, "r3", model_sha256="m2")
    assert history.generations(replace(CONFIG.generation, num_samples=3)) == []


def test_image_formats_do_not_mix(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    with pytest.raises(OutputError, match="another output or the same settings; a store has one image format"):
        start(tmp_path, replace(CONFIG, images=ImageConfig(image_format="jpeg"), allow_mixed=True), "r2")
