"""Write an enhancer as an ONNX file, and check it against onnxruntime.

    python tools/export_onnx.py weights/lol.pth lol.onnx --variant full

Input ``image``: float32, shape (N, 3, H, W), RGB in [0, 1], any N, H and W. Outputs: ``enhanced`` and ``illumination``
of the same shape and range, and for variant A ``noise_score`` of shape (N,): each image has its noise removed where its
own score says so. Nothing is written unless onnxruntime gives what the model gives.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ruas_mm.apis.enhancer_checkpoint import load_enhancer
from ruas_mm.apis.run_tool import add_debug_argument, run_tool
from ruas_mm.models.enhance import RUAS
from ruas_mm.models.enhance.ruas import VARIANTS
from ruas_mm.modules import fold
from ruas_mm.utils.fileio import atomic_write

# (N, H, W) of the images that the file is checked with.
_SIZES = ((1, 1, 1), (1, 1, 7), (3, 5, 1), (2, 17, 31), (1, 64, 96), (2, 150, 101))
# A quarter of a grey level. Rounding differs, and the division by the illumination amplifies it.
_TOLERANCE = 1e-3


class Exported(nn.Module):
    """An enhancer whose decisions are part of its graph.

    Args:
        model (RUAS): The enhancer.
    """

    def __init__(self, model: RUAS) -> None:
        super().__init__()
        self.model = fold(model, packed=False)
        self.outputs = ['enhanced', 'illumination', *(['noise_score'] if model.variant == 'A' else [])]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Enhance images of shape (N, 3, H, W); return what ``outputs`` names."""
        model = self.model
        scene = model.scene_module(model.extend(image))
        u, illumination = scene.features[-1], model.crop(scene.illuminations[-1])
        if model.variant == 'S':
            return model.crop(u), illumination
        clean = model.noise_removal(u).clamp(0, 1)
        if model.variant == 'full':
            return model.crop(clean), illumination
        score = model.noise_estimator.score(u, model.border)
        noisy = (score > model.epsilon).view(-1, 1, 1, 1)
        return model.crop(torch.where(noisy, clean, u)), illumination, score


def export(exported: Exported, opset: int) -> bytes:
    """Return the ONNX file of an enhancer.

    Args:
        exported (Exported): The enhancer, on the CPU.
        opset (int): Version of ONNX's operators.

    Returns:
        bytes: The file.
    """
    sizes = {0: 'batch', 2: 'height', 3: 'width'}
    axes = {name: {0: 'batch'} if name == 'noise_score' else sizes for name in ('image', *exported.outputs)}
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')  # the exporter's, about itself
        # By tracing: what torch recommends instead needs a version of onnxscript that goes with this one of torch.
        torch.onnx.export(
            exported,
            (torch.rand(2, 3, 24, 40),),
            file,
            input_names=['image'],
            output_names=exported.outputs,
            opset_version=opset,
            dynamic_axes=axes,
            dynamo=False,
        )
    return file.getvalue()


@torch.no_grad()
def check(content: bytes, model: RUAS) -> dict[str, float]:
    """Run an ONNX file and its model on the same images, smooth and noisy ones.

    Args:
        content (bytes): The file.
        model (RUAS): The enhancer.

    Returns:
        dict[str, float]: Largest absolute difference of every output.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    worst: dict[str, float] = {}
    for n, height, width in _SIZES:
        generator = torch.Generator().manual_seed(height)
        for first in (0, 1):  # every other image is noisy, so that variant A decides both ways in one batch
            noise = 0.3 * ((torch.arange(n) + first) % 2).view(-1, 1, 1, 1)
            image = 0.1 + noise * torch.rand(n, 3, height, width, generator=generator)
            expected = model.enhance(image)
            for output in session.get_outputs():
                (result,) = session.run([output.name], {'image': image.numpy()})
                reference = getattr(expected, output.name)
                if result.shape != tuple(reference.shape):
                    return {output.name: float('inf')}
                difference = (torch.from_numpy(result) - reference).abs().max().item()
                worst[output.name] = max(worst.get(output.name, 0.0), difference)
    return worst


def main() -> None:
    """Run the tool; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint of ruas_mm.RUAS (default: the weights of the package)'
    )
    parser.add_argument('out', metavar='OUT.onnx', type=Path, help='the file to write')
    parser.add_argument('--variant', choices=VARIANTS, help='default: A, or as much as the checkpoint has')
    parser.add_argument('--stages', type=int, metavar='K', help='use the first K stages (default: all)')
    parser.add_argument(
        '--resolution', type=float, metavar='SHARE', help='of the scene module: 1, 0.5, 0.25, … (default: as trained)'
    )
    parser.add_argument(
        '--opset', type=int, choices=range(13, 21), default=17, metavar='13 … 20', help='operators (default: 17)'
    )
    add_debug_argument(parser)
    args = parser.parse_args()
    missing = [name for name in ('onnx', 'onnxruntime') if find_spec(name) is None]
    if missing:
        sys.exit(f'Error: {", ".join(missing)} must be installed: pip install {" ".join(missing)}')
    if args.out.is_dir():
        sys.exit(f'Error: {args.out} is a folder; name a file to write.')

    model = load_enhancer(args.checkpoint, args.variant, args.stages, args.resolution)
    if model.adjusts:
        sys.exit(
            'Error: exposure, strength and brightness_gate of RUAS cannot be part of the graph; '
            'export a checkpoint without them.'
        )
    content = export(Exported(model).eval(), args.opset)
    differences = check(content, model)
    report = ', '.join(f'{name} {difference:.1e}' for name, difference in differences.items())
    if not max(differences.values()) <= _TOLERANCE:
        sys.exit(f'Error: onnxruntime differs from the model, so nothing was written: {report}.')
    try:
        atomic_write(args.out, content)
    except OSError as error:
        sys.exit(f'Error: {args.out} cannot be written: {error.strerror or error}.')
    print(f'{args.out}: variant {model.variant}, opset {args.opset}. Largest difference to the model: {report}.')


if __name__ == '__main__':
    run_tool(main)
