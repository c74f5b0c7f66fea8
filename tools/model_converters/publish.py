"""Export a trained ``ruas_mm.RUAS`` to small files, one per variant, which contain the config of their model."""

from __future__ import annotations

import argparse
from pathlib import Path

from ruas_mm.apis.enhancer_checkpoint import MODEL_OPTIONS, load_enhancer, read_model, save_enhancer
from ruas_mm.models.enhance.ruas import VARIANTS
from ruas_mm.utils.checkpoint import CheckpointError, load_from_local


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', type=Path, help='checkpoint of a training')
    parser.add_argument('folder', type=Path, help='where ruas_s.pth, ruas_full.pth and ruas_a.pth go')
    parser.add_argument(
        '--epsilon', type=float, help="noise score above which A removes the noise; by default the model's"
    )
    parser.add_argument(
        '--border', type=int, help="pixels by which images are extended while they are enhanced; by default the model's"
    )
    args = parser.parse_args()
    try:
        config, _ = read_model(load_from_local(args.src, 'cpu'), args.src)
        for variant in VARIANTS[: VARIANTS.index(config.get('variant', 'A')) + 1]:
            state = load_enhancer(args.src, variant).state_dict()
            model = {key: config[key] for key in MODEL_OPTIONS if key in config}
            chosen = {'epsilon': args.epsilon, 'border': args.border}
            model.update({key: value for key, value in chosen.items() if value is not None})
            path = args.folder / f'ruas_{variant.lower()}.pth'
            save_enhancer(path, {'type': 'ruas_mm.RUAS', 'variant': variant, **model}, state)
            print(f'{path}: RUAS of variant {variant!r}, {sum(value.numel() for value in state.values())} weights')
    except (OSError, ValueError, CheckpointError) as error:
        raise SystemExit(f'publish.py: {error}') from error


if __name__ == '__main__':
    main()
