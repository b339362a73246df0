"""Scoring a store: what is to do, what is written, reading it; and the job on a real local Ray."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.generate import main as generate_job
from jobs.score import SURFACE, lines, main, verdict
from omnigen_actor import store, uri
from omnigen_actor.errors import ConfigError, OutputError
from pipelines import lease
from pipelines.config import InputConfig
from pipelines.input_places import InputPlaces
from pipelines.ledger import Ledger
from pipelines.levels import read_part
from pipelines.scores import stored
from pipelines.scores.actor import ScoreBlocks
from pipelines.scores.config import ScoreConfig, ScoreWorkers
from pipelines.scores.pictures import LOADED, LoadPictures
from pipelines.scores.plan import Account, ScorePlan, plan_scores
from pipelines.scores.prepared import Prepared, prepare
from pipelines.scores.registry import parse
from pipelines.scores.run import score
from pipelines.scores.scorer import Picture, Score, ScorerSpec
from pipelines.scores.weights import find_weights
from tests.conftest import Bucket
from tests.scoring_models import colours, save_clip
from tests.test_verify import RUN, generate, image, make_store

NAMES = ["[red]", "[half]"]


class Sides:
    """A scorer of a user's own: the width of a picture. One of them it can't judge."""

    name = "sides"
    columns = pa.schema([("width", pa.int32())])
    needs_inputs = False
    num_gpus = 0.0
    batch_size = 2

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._bad = str(options.get("bad", "dog"))

    def __call__(self, pictures: Sequence[Picture]) -> list[Score]:
        if any(one.id == self._bad for one in pictures):
            raise ValueError("a picture of a dog")
        return [{"width": one.image.width} for one in pictures]


OWN = "tests.test_score_run:Sides"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "store"
    make_store(str(root))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> str:
    return str(shutil.copytree(made, tmp_path / "store"))


def plan(root: str, *scorers: Prepared, **more: Any) -> ScorePlan:
    return plan_scores(root, scorers, InputPlaces.read(root, None), Ledger.load(root), **more)


def execute(root: str, todo: ScorePlan, *specs: ScorerSpec) -> list[dict[str, Any]]:
    """What Ray does with a plan, in this process."""
    blocks = ScoreBlocks(specs, root)
    load = LoadPictures(InputConfig(), root, InputPlaces.read(root, None).allowed(InputConfig()))
    return [row for part in todo.parts for row in blocks(load(read_part(part))).to_pylist()]


def own(**options: Any) -> Prepared:
    return prepare(ScorerSpec(name="sides", factory=OWN, options=options))


def test_each_image_is_scored_once_and_says_why_it_is_not(root: str) -> None:
    scorer = own()
    todo = plan(root, scorer)
    assert todo.num_to_do == 3
    (told,) = execute(root, todo, scorer.spec)
    assert (told["name"], told["num_scored"], told["num_errors"]) == ("sides", 2, 1)
    assert "a picture of a dog" in told["example"]
    account = todo.account(root, "sides", told["example"])
    assert account == Account(name="sides", num_images=3, num_scored=2, num_errors=1, note=told["example"])

    again = plan(root, scorer)
    assert (again.num_to_do, again.parts) == (0, ())
    later = again.account(root, "sides", None)
    assert (later.num_already, later.num_already_errors, later.adds_up) == (3, 1, True)


def test_errors_are_scored_again_only_on_request_and_a_score_wins(root: str) -> None:
    execute(root, plan(root, own()), own().spec)
    todo = plan(root, own(), retry_errors=True)
    assert todo.num_to_do == 1
    execute(root, todo, own(bad="none").spec)
    assert plan(root, own(), retry_errors=True).num_to_do == 0
    rows = stored.read_scores(root, ["sides"]).to_pylist()
    assert [(row["id"], row["width"], row["sides_score_error"]) for row in rows] == [
        ("a cat", 32, None),
        ("boat", 32, None),
        ("dog", 32, None),
    ]


def test_an_image_that_is_made_anew_is_scored_anew(root: str) -> None:
    scorer = own(bad="none")
    execute(root, plan(root, scorer), scorer.spec)
    before = {row["id"]: row["sha256"] for row in stored.read_scores(root, ["sides"]).to_pylist()}
    generate(root, "boat", attempt=2, seed=77)
    todo = plan(root, scorer)
    assert [row["id"] for part in todo.parts for row in read_part(part).to_pylist()] == ["boat"]
    execute(root, todo, scorer.spec)
    rows = stored.read_scores(root, ["sides"]).to_pylist()
    assert len([row for row in rows if row["id"] == "boat"]) == 2
    assert {row["sha256"] for row in rows} > set(before.values())
    assert plan(root, scorer).num_to_do == 0


def test_a_block_that_is_done_twice_leaves_the_same_files(root: str) -> None:
    scorer = own()
    todo = plan(root, scorer)
    execute(root, todo, scorer.spec)
    before = {file: Path(file).read_bytes() for file in stored.part_files(root, "sides")}
    execute(root, todo, scorer.spec)
    assert {file: Path(file).read_bytes() for file in stored.part_files(root, "sides")} == before
    assert len(before) == 1


def test_a_missing_and_a_changed_image_are_errors_of_their_rows(root: str) -> None:
    image(Path(root), "a cat").unlink()
    path = image(Path(root), "boat")
    path.write_bytes(path.read_bytes() + b"x")
    execute(root, plan(root, own(bad="none")), own(bad="none").spec)
    errors = {row["id"]: row["sides_score_error"] for row in stored.read_scores(root, ["sides"]).to_pylist()}
    assert "no such file" in errors["a cat"]
    assert "its bytes are others than its record says" in errors["boat"]
    assert errors["dog"] is None


def test_scorers_share_one_pass_and_each_does_what_it_lacks(root: str) -> None:
    first, second = own(), prepare(parse(f"other={OWN}"))
    execute(root, plan(root, first), first.spec)
    generate(root, "bird")
    todo = plan(root, first, second)
    assert {name: int(flags.sum()) for name, flags in todo.to_do.items()} == {"sides": 1, "other": 4}
    execute(root, todo, first.spec, second.spec)
    table = stored.read_scores(root, ["sides", "other"])
    assert table.column_names == [
        "id", "sample", "sha256", "sides_width", "sides_score_error", "other_width", "other_score_error"
    ]  # fmt: skip
    assert table.num_rows == 4
    assert table["id"].to_pylist() == sorted(table["id"].to_pylist())


def test_scores_that_some_images_lack_are_null(root: str) -> None:
    statistics = prepare(parse("statistics"))
    execute(root, plan(root, own()), own().spec)
    generate(root, "bird")
    execute(root, plan(root, statistics), statistics.spec)
    rows = {row["id"]: row for row in stored.read_scores(root, ["sides", "statistics"]).to_pylist()}
    assert (rows["bird"]["width"], rows["bird"]["sides_score_error"]) == (None, None)
    assert rows["bird"]["brightness"] is not None
    assert rows["boat"]["width"] == 32


def test_names_without_scores_are_refused(root: str) -> None:
    with pytest.raises(OutputError, match=r"no scores 'clip': make them with python -m jobs\.score"):
        stored.read_scores(root, ["clip"])


def test_other_settings_under_the_same_name_are_refused(root: str) -> None:
    stored.write_description(root, own().description)
    stored.check_description(root, own().description)
    with pytest.raises(OutputError, match=r"bad=None \(now 'cat'\).*NAME=SCORER, or give --replace"):
        stored.check_description(root, own(bad="cat").description)


def test_scores_of_nobody_knows_what_are_refused(root: str) -> None:
    execute(root, plan(root, own()), own().spec)
    with pytest.raises(OutputError, match=r"no scorer\.json"):
        stored.check_description(root, own().description)


def test_a_model_may_lie_elsewhere_if_its_weights_are_the_same(root: str) -> None:
    facts = {"name": "clip", "version": "1", "columns": {"clip": "float"}}
    stored.write_description(root, {**facts, "settings": {"model": "here", "weights_sha256": "a"}})
    stored.check_description(root, {**facts, "settings": {"model": "there", "weights_sha256": "a"}})
    with pytest.raises(OutputError, match="weights_sha256='a'"):
        stored.check_description(root, {**facts, "settings": {"model": "here", "weights_sha256": "b"}})


def test_a_broken_file_of_scores_is_named(root: str) -> None:
    place = uri.join(root, stored.part_key("sides", [("a", 0, "b")]))
    uri.write_bytes(place, b"PAR1")
    with pytest.raises(OutputError, match=r"part-[0-9a-f]{24}\.parquet can't be read.*remove it"):
        plan(root, own())


# --- inputs ---


def record(**more: Any) -> dict[str, Any]:
    return {"id": "boat", "sample": 0, "run_id": RUN, "format": "png", "images": ["a/b.png"], **more}


def write_run(root: str, image_base: str | None, **config: Any) -> None:
    runs = [{"run_id": RUN, "image_base": image_base, "config": config}]
    uri.write_bytes(uri.join(root, store.RUN_KEY), json.dumps({"fingerprint": {}, "runs": runs}).encode())


def test_relative_references_start_where_the_run_says(root: str) -> None:
    write_run(root, "/pictures", generation={"max_input_image_size": 512})
    places = InputPlaces.read(root, None)
    assert places.uris(record()) == ["/pictures/a/b.png"]
    assert places.max_side(RUN) == 512
    assert places.uris(record(images=["s3://bucket/c.png"])) == ["s3://bucket/c.png"]
    assert InputPlaces.read(root, "/elsewhere").uris(record()) == ["/elsewhere/a/b.png"]


def test_a_row_reference_is_an_image_of_the_store(root: str) -> None:
    (place,) = InputPlaces.read(root, None).uris(record(images=["row:a cat#0"]))
    assert place == uri.join(root, store.image_key("a cat", 0, ".png"))
    assert Path(place).exists()


def test_a_relative_reference_that_starts_nowhere_needs_the_option(root: str) -> None:
    with pytest.raises(ConfigError, match="give --image-root"):
        InputPlaces.read(root, None).uris(record())
    assert InputPlaces.read(root, None).uris(record(images=["/c.png"])) == ["/c.png"]


def planned(root: str, *, image_uris: Sequence[str], image_sha256: Sequence[str]) -> pa.Table:
    row = read_part(plan(root, own()).parts[0]).slice(0, 1).to_pylist()[0]
    from pipelines.scores.pictures import PLANNED

    return pa.Table.from_pylist(
        [row | {"image_uris": list(image_uris), "image_sha256": list(image_sha256)}], schema=PLANNED
    )


@pytest.mark.parametrize(
    ("name", "sha256", "problem"),
    [
        ("in/a.png", "0" * 64, "its bytes are others than when the image was made"),
        ("in/none.png", "0" * 64, "no such file"),
        ("elsewhere/a.png", "0" * 64, "outside of the folders that rows may read"),
    ],
)
def test_inputs_that_are_not_what_the_model_saw_are_told(
    root: str, tmp_path: Path, name: str, sha256: str, problem: str
) -> None:
    for folder in ("in", "elsewhere"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (40, 40), "red").save(tmp_path / folder / "a.png")
    write_run(root, str(tmp_path / "in"))
    load = LoadPictures(InputConfig(), root, InputPlaces.read(root, None).allowed(InputConfig()))
    (row,) = load(planned(root, image_uris=[str(tmp_path / name)], image_sha256=[sha256])).to_pylist()
    assert problem in row["inputs_error"]
    assert row["image_error"] is None
    assert len(row["pixels"]) == 1


def test_inputs_are_fitted_as_the_model_saw_them(root: str, tmp_path: Path) -> None:
    import hashlib

    file = tmp_path / "in" / "a.png"
    file.parent.mkdir()
    Image.new("RGB", (41, 70), "red").save(file)
    write_run(root, str(tmp_path / "in"))
    load = LoadPictures(InputConfig(), root, InputPlaces.read(root, None).allowed(InputConfig()))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    table = load(planned(root, image_uris=[str(file)], image_sha256=[sha256]))
    assert table.schema == LOADED
    (row,) = table.to_pylist()
    assert row["inputs_error"] is None
    assert row["pixel_sizes"][2:] == [32, 64]


# --- the settings, and what the job says ---


def test_scorers_are_split_at_commas() -> None:
    assert ScoreConfig(scorers=("statistics, phash", "clip:a/b")).names == ["statistics", "phash", "clip:a/b"]


@pytest.mark.parametrize(
    ("num_gpus", "has_gpus", "device", "expected"),
    [
        (1.0, True, "auto", ("cuda", 1, None)),
        (1.0, False, "auto", ("cpu", 0, 4)),
        (1.0, False, "cuda", ("cuda", 1, None)),
        (1.0, True, "cpu", ("cpu", 0, 4)),
        (0.0, True, "auto", ("cpu", 0, 4)),
    ],
)
def test_only_scorers_with_a_model_take_gpus(
    num_gpus: float, has_gpus: bool, device: str, expected: tuple[str, float, int | None]
) -> None:
    pool = ScoreWorkers(device=device).pool(num_gpus=num_gpus, has_gpus=has_gpus, num_cpus=8)
    assert (pool.device, pool.gpus_per_actor, pool.num_actors) == expected


def test_the_verdict_counts_errors_of_earlier_runs_too() -> None:
    fine = Account(name="a", num_images=10, num_scored=4, num_already=6)
    bad = Account(name="b", num_images=10, num_scored=9, num_already=1, num_already_errors=1, note="x\ny")
    lost = Account(name="c", num_images=10, num_scored=9, num_missing=1)
    assert verdict([fine], 0) == 0
    assert (verdict([fine, bad], 0), verdict([fine, bad], 10)) == (1, 0)
    assert verdict([lost], 100) == 1
    assert lines([fine, bad, lost]) == [
        "a: 10 images, scored 4, errors 0, already there 6",
        "b: 10 images, scored 9, errors 0, already there 1 (1 of them errors: --retry-errors)",
        "    x y",
        "c: 10 images, scored 9, errors 0, already there 0: IT DOES NOT ADD UP, 1 have no score",
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "name some with --scorers"),
        (["--scorers", "statistic"], "did you mean statistics"),
        (["--scorers", "phash,phash"], "named twice"),
        (["--scorers", "clip:./none"], "no such scoring model"),
        (["--scorers", "near_duplicates"], "no scores 'phash'"),
        (["--scorers", "phash", "--rows-per-file", "0"], "rows"),
    ],
)
def test_what_can_not_start_is_exit_code_2_and_one_line(
    root: str, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([root, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_a_scoring_of_the_same_name_is_kept_out(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    with lease.hold(stored.scores_folder(root, "phash"), RUN, beat_s=60):
        assert main([root, "--scorers", "phash"]) == 2
    assert RUN in capsys.readouterr().err


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys, jobs.score\ntry: jobs.score.main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'ray', 'transformers', 'scipy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for setting in SURFACE.settings:
        assert f"--{setting.rpartition('.')[2].replace('_', '-')}" in done.stdout


# --- on Ray ---


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_store_is_scored_once_and_then_what_is_new(
    root: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [root, "--scorers", "statistics,copy_through,phash,near_duplicates", "--rows-per-file", "2"]
    assert main(command) == 0
    out = capsys.readouterr().out
    for name in ("statistics", "copy_through", "phash"):
        assert f"{name}: 3 images, scored 3, errors 0, already there 0\n" in out
    assert "near_duplicates: 3 images, scored 3, errors 0" in out
    files = {file: Path(file).read_bytes() for file in uri.list_files(uri.join(root, "scores"))}
    assert len([file for file in files if "/phash/part-" in file]) == 2
    assert not [file for file in files if stored.PLAN in file or file.endswith("lease.json")]
    table = stored.read_scores(root, ["statistics", "copy_through", "phash", "near_duplicates"])
    assert table.num_rows == 3
    assert table["phash"].null_count == 0

    assert main(command) == 0
    assert "phash: 3 images, scored 0, errors 0, already there 3\n" in capsys.readouterr().out
    assert {file: Path(file).read_bytes() for file in uri.list_files(uri.join(root, "scores"))} == files

    generate(root, "boat", attempt=2, seed=77)
    assert main(command) == 0
    out = capsys.readouterr().out
    for name in ("statistics", "copy_through", "phash"):
        assert f"{name}: 3 images, scored 1, errors 0, already there 2\n" in out

    accounts = score(root, ScoreConfig(scorers=("phash",), replace=True))
    assert [(one.num_scored, one.num_already) for one in accounts] == [(3, 0)]
    assert {row["id"] for row in stored.read_scores(root, ["phash"]).to_pylist()} == {"a cat", "boat", "dog"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_model_sees_the_inputs_of_a_real_run(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    colours(1, (70, 64)).save(tmp_path / "in" / "a.png")
    rows = [
        {"id": "first", "task": "edit", "instruction": "make it blue", "images": ["a.png"]},
        {"id": "second", "task": "edit", "instruction": "make it red", "images": ["row:first"]},
        {"id": "text", "task": "text_to_image", "instruction": "a boat", "images": [], "width": 64, "height": 64},
    ]
    manifest = tmp_path / "in" / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    root = str(tmp_path / "store")
    assert generate_job([str(manifest), root, "--model", "fake", "--steps", "2"]) == 0
    model = save_clip(tmp_path / "clip")
    accounts = score(root, ScoreConfig(scorers=(f"clip:{model},copy_through",)))
    assert [(one.name, one.num_scored, one.num_errors) for one in accounts] == [("copy_through", 3, 0), ("clip", 3, 0)]
    found = {row["id"]: row for row in stored.read_scores(root, ["clip", "copy_through"]).to_pylist()}
    for row_id in ("first", "second"):
        assert -1 <= found[row_id]["clip_image"] <= 1.00001
        assert found[row_id]["copy_psnr_db"] is not None
    assert found["text"]["clip_image"] is None
    assert found["text"]["clip"] is not None
    told = stored.read_description(root, "clip")
    assert told is not None
    assert told["settings"]["weights_sha256"] == find_weights(str(model)).sha256
    with pytest.raises(OutputError, match="weights_sha256"):
        score(root, ScoreConfig(scorers=(f"clip:{save_clip(tmp_path / 'other', seed=1)}",)))


@pytest.mark.s3
@pytest.mark.ray
@pytest.mark.slow
def test_a_store_on_s3_is_scored_there(s3: Bucket) -> None:
    root = f"{s3.uri}/run"
    make_store(root)
    command = [sys.executable, "-m", "jobs.score", root, "--scorers", "statistics,phash,near_duplicates"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "statistics: 3 images, scored 3, errors 0, already there 0" in done.stdout
    (key,) = [key for key in s3.keys("run/scores/phash/") if key.endswith(".parquet")]
    assert pq.read_table(io.BytesIO(s3.get(key))).num_rows == 3
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "phash: 3 images, scored 0, errors 0, already there 3" in again.stdout
    assert np.all([not key.endswith("lease.json") for key in s3.keys("run/scores/")])
