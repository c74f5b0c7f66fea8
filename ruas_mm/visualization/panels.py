"""Join titled pictures side by side and output them."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import mmcv
import numpy as np
from mmengine.structures import PixelData
from mmengine.visualization import Visualizer
from torch import Tensor


def to_picture(image: Tensor) -> np.ndarray:
    """Convert a map to a picture.

    Args:
        image (Tensor): Shape (3, H, W), RGB in [0, 1].

    Returns:
        np.ndarray: RGB uint8 picture of shape (H, W, 3).
    """
    return (image.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def scene_panels(scene: PixelData, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Convert a scene to pictures.

    Args:
        scene (PixelData): ``data_sample.scene``: ``feature`` and ``illumination`` of shape (3, H, W) in [0, 1].
        shape (tuple[int, int]): Height and width of the pictures in pixels.

    Returns:
        dict[str, np.ndarray]: Titles and RGB uint8 pictures of shape (H, W, 3).
    """
    maps = {'scene feature': scene.feature, 'illumination': scene.illumination}
    return {title: mmcv.imresize(to_picture(image), shape[::-1]) for title, image in maps.items()}


def side_by_side(panels: Mapping[str, np.ndarray], bar: int = 22) -> np.ndarray:
    """Join pictures of one size into a strip, each under its title.

    Args:
        panels (Mapping[str, np.ndarray]): Titles and RGB uint8 pictures of shape (H, W, 3).
        bar (int): Height of the title bar in pixels.

    Returns:
        np.ndarray: RGB uint8 strip.
    """
    columns = []
    for title, image in panels.items():
        column = np.pad(image, ((bar, 0), (0, 4), (0, 0)), constant_values=255)
        cv2.putText(column, title, (4, bar - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        columns.append(column)
    return np.concatenate(columns, axis=1)


def output_picture(
    visualizer: Visualizer,
    name: str,
    strip: np.ndarray,
    show: bool = False,
    wait_time: float = 0,
    out_file: str | None = None,
    step: int = 0,
) -> None:
    """Show a picture, and write it to a file or pass it to the backends; used by ``add_datasample`` of the visualizers.

    Args:
        visualizer (Visualizer): Visualizer with the backends.
        name (str): Name of the picture.
        strip (np.ndarray): RGB uint8 picture of shape (H, W, 3).
        show (bool): Whether to open a window.
        wait_time (float): Time for which the window is shown, in seconds; 0 waits for a key.
        out_file (str, optional): File to write; None passes the picture to the backends.
        step (int): Step number for the backends.
    """
    visualizer.set_image(strip)
    if show:
        visualizer.show(strip, win_name=name, wait_time=wait_time)
    if out_file is not None:
        mmcv.imwrite(strip[..., ::-1], out_file)
    else:
        visualizer.add_image(name, strip, step)
