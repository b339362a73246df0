"""Does an image keep the depth, or the pose, that it was to follow? Models measure both images. Knows no store.

Of rows whose task says what is followed: ``follow_depth``, ``follow_pose``, and ``condition`` with a depth map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnigen_actor.errors import ModelError
from pipelines.scores.scorer import Picture, Score

if TYPE_CHECKING:
    from PIL import Image

_GRID = 256
"""Side of the square on which two depth maps are compared: pictures of different sizes have the same one."""

_SEEN = 0.3
"""Confidence from which on a keypoint of the input counts, as in the drawings of COCO's skeletons."""

_Map = npt.NDArray[np.float64]


class DepthScorer:
    """``depth_error``: mean difference of the depths in shares of the range that is to be followed, best aligned.

    0: the same depths but for scale and shift, which depth models do not agree on. Null for other tasks, for a
    ``condition`` that is no grey picture, and where what is to be followed is flat.
    """

    name = "depth"
    columns = pa.schema([("depth_error", pa.float32())])
    needs_inputs = True
    num_gpus = 1.0
    batch_size = 8

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Options as in ``open_pretrained``. Raises ModelError."""
        from transformers import AutoModelForDepthEstimation

        from pipelines.scores.pretrained import open_pretrained

        self._model = open_pretrained(options, AutoModelForDepthEstimation)

    def __call__(self, pictures: Sequence[Picture]) -> list[Score]:
        """One dict for each picture."""
        return [{"depth_error": self._error(picture)} for picture in pictures]

    def _error(self, picture: Picture) -> float | None:
        if len(picture.inputs) != 1:
            return None
        (followed,) = picture.inputs
        if picture.task == "follow_depth":
            return depth_error(self._depth(picture.image), self._depth(followed))
        if picture.task == "condition" and is_grey(followed):
            # Whether near is bright, in the map and in what the model says, nobody tells: both directions count.
            return depth_error(self._depth(picture.image), brightness(followed), either_way=True)
        return None

    def _depth(self, image: Image.Image) -> _Map:
        """One picture at a time: image processors that keep the shape give each its own size."""
        import torch

        depth_1HW = self._model.run(self._model.network, [image]).predicted_depth
        grid = torch.nn.functional.interpolate(depth_1HW[None].float(), size=(_GRID, _GRID), mode="bilinear")
        return grid[0, 0].double().cpu().numpy()


class PoseScorer:
    """``pose_error``: mean distance of the input's keypoints to those of the image, in shares of the diagonal.

    Of keypoints that the model is sure of in the input; each picture is taken for one person, whole. Null for other
    tasks, and where the model sees nobody in the input.
    """

    name = "pose"
    columns = pa.schema([("pose_error", pa.float32())])
    needs_inputs = True
    num_gpus = 1.0
    batch_size = 8

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Options as in ``open_pretrained``; the model is a VitPose. Raises ModelError."""
        from transformers import VitPoseForPoseEstimation

        from pipelines.scores.pretrained import open_pretrained

        self._model = open_pretrained(options, VitPoseForPoseEstimation)
        if not hasattr(self._model.image_processor, "post_process_pose_estimation"):
            raise ModelError(f"{self._model.label} has no image processor for poses: choose a VitPose model")

    def __call__(self, pictures: Sequence[Picture]) -> list[Score]:
        """One dict for each picture."""
        return [{"pose_error": self._error(picture)} for picture in pictures]

    def _error(self, picture: Picture) -> float | None:
        if picture.task != "follow_pose" or len(picture.inputs) != 1:
            return None
        followed_K2, confidence_K = self._keypoints(picture.inputs[0])
        found_K2, _ = self._keypoints(picture.image)
        return pose_error(found_K2, followed_K2, confidence_K, picture.image.size)

    def _keypoints(self, image: Image.Image) -> tuple[_Map, _Map]:
        """Keypoints as shares of width and height, and how sure the model is of each."""
        import torch

        boxes = [[[0.0, 0.0, float(image.width), float(image.height)]]]
        outputs = self._model.run(self._forward, [image], boxes=boxes)
        with torch.inference_mode():
            ((person,),) = self._model.image_processor.post_process_pose_estimation(outputs, boxes=boxes)
        shares_K2 = person["keypoints"].double().numpy() / np.array(image.size, np.float64)
        return shares_K2, person["scores"].double().numpy()

    def _forward(self, pixel_values: Any) -> Any:
        import torch

        more: dict[str, Any] = {}
        if getattr(self._model.network.config.backbone_config, "num_experts", 1) > 1:
            more["dataset_index"] = torch.zeros(len(pixel_values), dtype=torch.long, device=pixel_values.device)
        return self._model.network(pixel_values=pixel_values, **more)


def open_depth(options: Mapping[str, Any]) -> DepthScorer:
    """A scorer with any depth estimator of transformers."""
    return DepthScorer(options)


def open_pose(options: Mapping[str, Any]) -> PoseScorer:
    """A scorer with a VitPose model of transformers."""
    return PoseScorer(options)


def depth_error(found: _Map, followed: _Map, *, either_way: bool = False) -> float | None:
    """Mean |scale × found + shift − followed| over the range of ``followed``, scale and shift by least squares.

    Both of one shape. The scale is no less than 0, unless ``either_way``: an inverted depth is another one. None where
    ``followed`` is flat. Alignment as in MiDaS (Ranftl et al., 2020, arXiv:1907.01341).
    """
    extent = float(np.ptp(followed))
    if extent <= 1e-6 * max(1.0, float(np.abs(followed).max())):
        return None
    target = (followed - followed.mean()) / extent
    centred = found - found.mean()
    variance = float((centred**2).mean())
    scale = float((centred * target).mean()) / variance if variance > 0 else 0.0
    if not either_way:
        scale = max(scale, 0.0)
    return float(np.abs(scale * centred - target).mean())


def pose_error(
    found_K2: _Map, followed_K2: _Map, confidence_K: _Map, size: tuple[int, int], seen: float = _SEEN
) -> float | None:
    """Mean distance of two sets of keypoints, given in shares of width and height, over the diagonal of ``size``.

    Of those with a confidence of ``seen`` or more; None where there are none.
    """
    is_seen = confidence_K >= seen
    if not is_seen.any():
        return None
    sides = np.array(size, np.float64)
    distances = np.linalg.norm((found_K2 - followed_K2)[is_seen] * sides, axis=-1)
    return float(distances.mean() / np.linalg.norm(sides))


def is_grey(image: Image.Image) -> bool:
    """Whether an RGB picture has no colour to speak of: JPEG leaves a little."""
    pixels_HW3 = np.asarray(image, np.int16)
    return bool(np.ptp(pixels_HW3, axis=-1).mean() < 3)


def brightness(image: Image.Image) -> _Map:
    """A grey picture as a map on the grid of ``depth_error``, 0 to 1."""
    from PIL import Image as Pillow

    grid = image.convert("L").resize((_GRID, _GRID), Pillow.Resampling.BILINEAR)
    return np.asarray(grid, np.float64) / 255
