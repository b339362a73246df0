"""Where a model comes from: hub id, folder or URI -> a local folder whose files are known to be whole.

Reads configurations and safetensors headers only, so that a driver without a GPU finds a bad checkpoint in
milliseconds. Knows neither torch nor the mathematics of the model. Pickled weights are never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from omnigen_actor import uri as uris
from omnigen_actor.errors import ModelError

TRANSFORMER, VAE, TOKENIZER, SCHEDULER = "transformer", "vae", "tokenizer", "scheduler"

_CONFIGS = {
    "model_index": "model_index.json",
    TRANSFORMER: "transformer/config.json",
    VAE: "vae/config.json",
    SCHEDULER: "scheduler/scheduler_config.json",
    TOKENIZER: "tokenizer/tokenizer.json",
}
_WANTED = ("*.json", "*.safetensors", "tokenizer/*")
_MAX_FILE_BYTES = 64 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A verified local checkpoint. ``identity`` is the sha256 over the weight files, read in full."""

    name: str
    folder: Path
    transformer: dict[str, Any]
    scheduler: dict[str, Any]
    weights: tuple[Path, ...]

    @property
    def identity(self) -> str:
        """sha256 over names and bytes of all weight files."""
        digest = hashlib.sha256()
        for path in self.weights:
            digest.update(path.relative_to(self.folder).as_posix().encode())
            digest.update(_file_sha256(path))
        return digest.hexdigest()


def open_checkpoint(model: str) -> Checkpoint:
    """Fetch ``model`` if it is not local, verify it, and return it.

    Raises ModelError, naming the model and the file, when there is no such model, or a file is missing, cut short,
    unreadable, or made for another kind of model.
    """
    folder = local_folder(model)
    configs = {part: _read_json(model, folder / file) for part, file in _CONFIGS.items() if part != TOKENIZER}
    _check_kind(model, configs[TRANSFORMER], configs[SCHEDULER])
    if not (folder / _CONFIGS[TOKENIZER]).is_file():
        raise ModelError(f"model {model!r} is incomplete: {_CONFIGS[TOKENIZER]} is missing")
    transformer = _weight_files(model, folder / TRANSFORMER, "diffusion_pytorch_model")
    vae = _weight_files(model, folder / VAE, "diffusion_pytorch_model")
    _check_tensors(model, configs[TRANSFORMER], transformer)
    for path in vae:
        read_header(model, path)
    return Checkpoint(
        name=model,
        folder=folder,
        transformer=configs[TRANSFORMER],
        scheduler=configs[SCHEDULER],
        weights=(*transformer, *vae),
    )


def local_folder(model: str) -> Path:
    """The local folder of ``model``: itself, or a copy fetched from a URI or the hub. Raises ModelError."""
    if "://" in model:
        return _fetch_uri(model)
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ModelError(f"no such model: {model!r} is neither a folder, a URI, nor a hub id of the form owner/name")
    return _fetch_hub(model)


def read_header(model: str, path: Path) -> dict[str, list[int]]:
    """Tensor names and shapes of one safetensors file. Raises ModelError unless the file is whole."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= size - 8:
                raise ModelError(f"model {model!r}: {_short(path)} is corrupt or cut short ({size} bytes)")
            header: dict[str, Any] = json.loads(file.read(length))
    except FileNotFoundError:
        raise ModelError(f"model {model!r} is incomplete: {_short(path)} is missing") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"model {model!r}: {_short(path)} is not a safetensors file ({error})") from None
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    if size != 8 + length + end:
        raise ModelError(f"model {model!r}: {_short(path)} has {size} bytes, its header tells of {8 + length + end}")
    return {name: entry["shape"] for name, entry in tensors.items()}


def _weight_files(model: str, folder: Path, stem: str) -> tuple[Path, ...]:
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(_read_json(model, index)["weight_map"].values()))
        return tuple(folder / Path(shard).name for shard in shards)
    single = folder / f"{stem}.safetensors"
    if not single.is_file():
        pickled = next(folder.glob("*.bin"), None)
        why = f"only {pickled.name}, which is pickled and never read" if pickled else "no such file"
        raise ModelError(f"model {model!r} is incomplete: {_short(single)}: {why}")
    return (single,)


def _check_kind(model: str, transformer: dict[str, Any], scheduler: dict[str, Any]) -> None:
    kind = transformer.get("_class_name")
    if kind != "OmniGenTransformer2DModel":
        raise ModelError(f"model {model!r} is of kind {kind!r}; this engine runs OmniGenTransformer2DModel checkpoints")
    if not scheduler.get("invert_sigmas", False) or scheduler.get("num_train_timesteps") != 1:
        raise ModelError(
            f"model {model!r}: the scheduler must have invert_sigmas=true and num_train_timesteps=1, as OmniGen's has"
        )


def _check_tensors(model: str, config: dict[str, Any], files: tuple[Path, ...]) -> None:
    found: dict[str, list[int]] = {}
    for path in files:
        found |= read_header(model, path)
    for name, shape in expected_tensors(config).items():
        if name not in found:
            raise ModelError(f"model {model!r} is incomplete: tensor {name} is in none of its files")
        if found[name] != shape:
            raise ModelError(f"model {model!r}: tensor {name} has shape {found[name]}, its config tells of {shape}")


def expected_tensors(config: dict[str, Any]) -> dict[str, list[int]]:
    """Names and shapes of every tensor of an OmniGenTransformer2DModel with this configuration."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    head = hidden // config["num_attention_heads"]
    kv = head * config["num_key_value_heads"]
    patch = config["patch_size"] ** 2 * config["in_channels"]
    conv = [hidden, config["in_channels"], config["patch_size"], config["patch_size"]]
    shapes = {
        "embed_tokens.weight": [config["vocab_size"], hidden],
        "norm.weight": [hidden],
        "norm_out.linear.weight": [2 * hidden, hidden],
        "norm_out.linear.bias": [2 * hidden],
        "proj_out.weight": [patch, hidden],
        "proj_out.bias": [patch],
        "patch_embedding.pos_embed": [1, config["pos_embed_max_size"] ** 2, hidden],
    }
    for side in ("output", "input"):
        shapes[f"patch_embedding.{side}_image_proj.weight"] = conv
        shapes[f"patch_embedding.{side}_image_proj.bias"] = [hidden]
    for embedder in ("time_token", "t_embedder"):
        shapes[f"{embedder}.linear_1.weight"] = [hidden, config["time_step_dim"]]
        shapes[f"{embedder}.linear_2.weight"] = [hidden, hidden]
        shapes |= {f"{embedder}.linear_{i}.bias": [hidden] for i in (1, 2)}
    for i in range(config["num_layers"]):
        layer = f"layers.{i}"
        shapes |= {
            f"{layer}.input_layernorm.weight": [hidden],
            f"{layer}.post_attention_layernorm.weight": [hidden],
            f"{layer}.self_attn.to_q.weight": [hidden, hidden],
            f"{layer}.self_attn.to_k.weight": [kv, hidden],
            f"{layer}.self_attn.to_v.weight": [kv, hidden],
            f"{layer}.self_attn.to_out.0.weight": [hidden, hidden],
            f"{layer}.mlp.gate_up_proj.weight": [2 * ffn, hidden],
            f"{layer}.mlp.down_proj.weight": [hidden, ffn],
        }
    return shapes


def _read_json(model: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"model {model!r} is incomplete: {_short(path)} is missing") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"model {model!r}: {_short(path)} can't be read ({error})") from None
    if not isinstance(content, dict):
        raise ModelError(f"model {model!r}: {_short(path)} does not hold a JSON object")
    return content


def _fetch_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(_WANTED)))
    except Exception as error:
        raise ModelError(
            f"no such model: {model!r} is no local folder and the hub did not give it ({_first_line(error)})"
        ) from None


def _fetch_uri(model: str) -> Path:
    """One copy per node, under a lock; a copy that was cut short is never taken for a whole one."""
    target = _cache_root() / hashlib.sha256(model.encode()).hexdigest()[:32]
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_dir():
            return target
        try:
            files = [f for f in uris.list_files(model) if f.endswith((".json", ".safetensors")) or "/tokenizer/" in f]
            if not files:
                raise ModelError(f"no such model: there are no checkpoint files under {uris.redact(model)}")
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                _copy(model, files, Path(scratch) / "copy")
                (Path(scratch) / "copy").rename(target)
        except OSError as error:
            raise ModelError(f"model {uris.redact(model)!r} can't be fetched ({_first_line(error)})") from None
    return target


def _copy(model: str, files: list[str], target: Path) -> None:
    root = model.rstrip("/") + "/"
    for source in files:
        path = target / source.removeprefix(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        with uris.open_read(source) as remote, path.open("wb") as local:
            while chunk := remote.read(16 * 2**20):
                local.write(chunk)


def _cache_root() -> Path:
    base = os.environ.get("OMNIGEN_BATCH_CACHE") or Path.home() / ".cache" / "omnigen-batch"
    return Path(base) / "models"


def _file_sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
