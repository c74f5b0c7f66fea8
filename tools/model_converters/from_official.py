"""Convert a checkpoint of the authors of RUAS to a checkpoint of this package.

    python tools/model_converters/from_official.py lol.pt weights/lol.pth

writes ``weights/lol.pth``, a checkpoint of ``ruas_mm.RUAS``, and its architecture, ``weights/lol.genotype.json``.
``meta['model']`` of the checkpoint is the config of the model whose weights it contains. Both public releases are
supported: the journal's (``enhance_net.*``, ``denoise_net.*``, ``estimation.*``; variant A) and the 2021
conference's (without ``estimation.*``; variant full). No code from the file is run.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ruas_mm.apis.enhancer_checkpoint import save_enhancer
from ruas_mm.models.enhance import RUAS
from ruas_mm.search import Genotype
from ruas_mm.utils.checkpoint import CheckpointError, load_from_local


class Release(NamedTuple):
    """One of the authors' releases.

    Attributes:
        name (str): For people to read.
        variant (str): Variant of ``RUAS`` that its checkpoints hold.
        genotype (str): Name of its architecture, which is shipped with this package.
        t_min (float): Its smallest illumination (METHOD §2).
    """

    name: str
    variant: str
    genotype: str
    t_min: float


JOURNAL = Release('journal release', 'A', 'ruas_enhance_journal', 1e-4)
CONFERENCE = Release('2021 conference release', 'full', 'ruas_enhance_conference', 1e-3)

# Their edges, by the place that METHOD §3 gives them: o1 … o7.
EDGES = ('c1_d', 'c1_r', 'c2_d', 'c2_r', 'c3_d', 'c3_r', 'c4')

# Their modules and ours. What they call the modules between an edge and its convolution says nothing.
PATTERNS = (
    (re.compile(r'enhance_net\.iems\.(\d+)\.(?:cell\.)?(c\d(?:_[dr])?)\.(?:\w+\.)*(weight|bias)'), 'scene_module'),
    (re.compile(r'denoise_net\.nrms\.(\d+)\.(?:cell\.)?(c\d(?:_[dr])?)\.(?:\w+\.)*(weight|bias)'), 'noise_removal'),
)
PREFIXES = {
    'denoise_net.stem.': 'noise_removal.stem.',
    'denoise_net.activate.0.': 'noise_removal.to_noise.',
    'estimation.estimation.': 'noise_estimator.',
}


class ConversionError(ValueError):
    """A file is none of the authors' checkpoints."""


def our_name(key: str) -> str:
    """Return what this package calls a weight of theirs; the key itself if it is none of theirs."""
    for pattern, module in PATTERNS:
        match = pattern.fullmatch(key)
        if match and (match[2] in EDGES or match[2] == 'c5'):
            place = 'fuse' if match[2] == 'c5' else f'operations.{EDGES.index(match[2])}'
            return f'{module}.cells.{match[1]}.{place}.{match[3]}'
    for theirs, ours in PREFIXES.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def convert(weights: Any) -> tuple[dict[str, Any], Release]:
    """Convert the authors' weights.

    Args:
        weights (Any): What their checkpoint file holds.

    Returns:
        tuple[dict[str, Any], Release]: Config and weights of the model, as ``model`` and ``state_dict``; and the
        release that it is from.

    Raises:
        ConversionError: If it is none of theirs; the message names the first weight that does not fit.
    """
    if not isinstance(weights, dict) or not weights or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ConversionError('it is not a mapping of names to weights')
    if not all(isinstance(key, str) for key in weights) or not any(key.startswith('enhance_net.') for key in weights):
        raise ConversionError('no weight is named enhance_net.*')
    release = JOURNAL if any(key.startswith('estimation.') for key in weights) else CONFERENCE
    genotype = Genotype.load(release.genotype).slots
    options = dict(variant=release.variant, genotype=genotype, scene_module=dict(t_min=release.t_min))
    model = RUAS(**options)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state: dict[str, Tensor] = {}
    for key, value in weights.items():
        name, form = our_name(key), f'as the {release.name} has it'
        if name not in wanted or name in state:
            raise ConversionError(f'{key} is no weight of RUAS {form}')
        if tuple(value.shape) != wanted[name]:
            raise ConversionError(f'{key} has shape {tuple(value.shape)}, not {wanted[name]} {form}')
        state[name] = value
    for name in wanted:
        if name not in state:
            raise ConversionError(f'nothing in it becomes {name}, which the {release.name} has')
    model.load_state_dict(state, strict=True)
    return {'model': dict(type='ruas_mm.RUAS', **options), 'state_dict': model.state_dict()}, release


def main() -> None:
    """Run the tool; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', type=Path, help="the authors' checkpoint")
    parser.add_argument('dst', type=Path, help='the checkpoint to write; the genotype goes beside it')
    args = parser.parse_args()

    try:
        if args.dst.is_dir():
            raise IsADirectoryError(f'{args.dst} is a folder; name the file to write.')
        if args.dst.exists() and args.dst.samefile(args.src):
            raise ConversionError(f'{args.dst} would take the place of the file to convert; name another.')
        weights = load_from_local(str(args.src), 'cpu')
        try:
            converted, release = convert(weights)
        except ConversionError as error:
            raise ConversionError(f"{args.src} is not one of the authors' checkpoints: {error}.") from None
        origin = f'{args.src.name}, published by the authors of RUAS with the {release.name}'
        genotype = Genotype(converted['model']['genotype'], origin={'what': f'architecture of {origin}'})
        genotype_path = args.dst.with_suffix('.genotype.json')
        genotype.save(genotype_path)
        save_enhancer(args.dst, converted['model'], converted['state_dict'], origin=origin)
    except (CheckpointError, OSError, ValueError) as error:
        raise SystemExit(f'from_official.py: {error}') from None
    print(f'{args.dst}: RUAS of variant {release.variant!r} from {origin}')
    print(f'{genotype_path}: its architecture, shipped as {release.genotype!r} too')


if __name__ == '__main__':
    main()
