"""Checkpoints of ``ruas_mm.RUAS`` and ``ruas_mm.RUASEditor`` as models that are ready to enhance."""

from __future__ import annotations

import ast
import inspect
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ruas_mm.models.enhance import RUAS
from ruas_mm.models.enhance.ruas import VARIANTS
from ruas_mm.modules import NoiseEstimator, NoiseRemoval, SceneModule
from ruas_mm.utils.checkpoint import load_from_local
from ruas_mm.utils.fileio import atomic_write, check_file
from ruas_mm.utils.text import shorten, show
from ruas_mm.version import __version__

_WEIGHTS = Path(__file__).parents[1] / 'weights'
_PARTS = {'scene_module': SceneModule, 'noise_removal': NoiseRemoval, 'noise_estimator': NoiseEstimator}
# The weight whose first dimension is the number of channels of a part.
_CHANNELS = {
    'scene_module': 'scene_module.cells.0.fuse.weight',
    'noise_removal': 'noise_removal.stem.weight',
    'noise_estimator': 'noise_estimator.0.weight',
}
# Options that cost time or memory and that no weight in the file pays for; far beyond what enhances.
_LARGEST = {'stages': 64, 'cells': 64, 'window': 127, 'border': 1024}
# Stages times window times 1 / resolution: about half as far as the scene module sees, which costs time too.
_FURTHEST = 512
# A cell sees about as far as this window.
_CELL = 6
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# Characters in the text of a config; the longest of this package have 10 thousand.
_LONGEST_CONFIG = 2**20
# What enhances. Losses do not, and a checkpoint should not decide which other classes are built.
MODEL_OPTIONS = ('genotype', 'epsilon', 'border', 'exposure', 'strength', 'brightness_gate', *_PARTS)


def shipped_weights(variant: str) -> Path:
    """Return the weights that come with the package.

    Args:
        variant (str): ``S``, ``full`` or ``A``.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If there are none.
        OSError: If they cannot be read.
    """
    path = _WEIGHTS / f'ruas_{variant.lower()}.pth'
    try:
        check_file(path, 'The checkpoint')
    except FileNotFoundError:
        raise FileNotFoundError(
            f'No weights of variant {variant!r} come with this version of ruas_mm; name a checkpoint, '
            "your own or the authors', converted by tools/model_converters/from_official.py."
        ) from None
    return path


def load_enhancer(
    checkpoint: str | Path | None = None,
    variant: str | None = None,
    stages: int | None = None,
    resolution: float | None = None,
    **options: float | str | None,
) -> RUAS:
    """Load a model to enhance with.

    The model is built as the checkpoint says: in ``meta['model']``, which ``from_official.py`` writes, or in
    ``meta['cfg']``, which a training writes. No code from the file is run.

    Args:
        checkpoint (str | Path, optional): The file; by default the shipped weights.
        variant (str, optional): ``S``, ``full`` or ``A``, as far as the checkpoint has the parts; by default its own,
            and ``A`` of the shipped weights.
        stages (int, optional): Number of stages of the scene module to use, the first ones; by default all.
        resolution (float, optional): Resolution of the scene module, see :class:`ruas_mm.SceneModule`; by default the
            checkpoint's.
        **options (float | str | None): ``exposure``, ``strength`` and ``brightness_gate`` of :class:`ruas_mm.RUAS`;
            what is None or not given is the checkpoint's.

    Returns:
        RUAS: The model, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: If the file does not exist or no weights are shipped.
        OSError: If the file cannot be read.
        CheckpointError: If the file is no checkpoint, damaged, or refused.
        ValueError: If it holds no such model, or an option has no such value.
    """
    if variant is not None and variant not in VARIANTS:
        raise ValueError(f'RUAS has no variant {variant!r}; choose from {", ".join(VARIANTS)}.')
    path = shipped_weights(variant or 'A') if checkpoint is None else Path(checkpoint)
    content = load_from_local(path, 'cpu')
    config, state = read_model(content, path)
    held = config.get('variant', 'A')
    if not isinstance(held, str) or held not in VARIANTS:
        raise ValueError(f'Checkpoint {path} is of an unknown variant {show(held)}.')
    variant = variant or held
    if VARIANTS.index(variant) > VARIANTS.index(held):
        raise ValueError(f'Checkpoint {path} is of variant {held!r}, which lacks a part that {variant!r} needs.')
    chosen = {option: value for option, value in options.items() if value is not None}
    model = _build({**config, **chosen}, variant, state, path)
    _load_state(model, state, path)
    trained = len(model.scene_module.cells)
    if stages is not None and not 1 <= stages <= trained:
        raise ValueError(f'Checkpoint {path} has {trained} stages, so stages must be 1 to {trained}, not {stages}.')
    del model.scene_module.cells[stages or trained :]
    if resolution is not None:
        model.scene_module.resolution = resolution
    return model.eval()


def save_enhancer(path: Path, model: dict, state: dict[str, Tensor], **meta: Any) -> None:
    """Write a checkpoint that says how its model is built, whole or not at all; :func:`load_enhancer` reads it.

    Args:
        path (Path): The file.
        model (dict): Config of :class:`ruas_mm.RUAS`.
        state (dict[str, Tensor]): Its weights.
        **meta (Any): What else the file is to say about itself.

    Raises:
        OSError: If it cannot be written.
    """
    content = io.BytesIO()
    torch.save({'meta': {**meta, 'model': model, 'ruas_mm_version': __version__}, 'state_dict': state}, content)
    atomic_write(path, content.getvalue())


def read_model(content: Any, path: Path) -> tuple[dict, dict[str, Tensor]]:
    """Return config and weights of the model in a checkpoint.

    Args:
        content (Any): What was loaded from the file.
        path (Path): The file, for messages.

    Returns:
        tuple[dict, dict[str, Tensor]]: The config of :class:`ruas_mm.RUAS` and its state.

    Raises:
        ValueError: If there is no such model.
    """
    if not isinstance(content, dict):
        raise ValueError(f'Checkpoint {path} holds no model.')
    if any(str(key).startswith('enhance_net.') for key in content):
        raise ValueError(
            f"{path} is a checkpoint of the authors' release; convert it by tools/model_converters/from_official.py."
        )
    meta, state = content.get('meta'), content.get('state_dict')
    if not isinstance(state, dict) or not isinstance(meta, dict):
        raise ValueError(f'Checkpoint {path} holds no "state_dict" with a "meta".')
    config = meta.get('model') or model_in_config(meta.get('cfg'))
    if not isinstance(config, dict):
        raise ValueError(
            f'Checkpoint {path} does not say how its model is built: "meta" has neither "model" nor "cfg".'
        )
    if not _is_type(config.get('type'), 'RUAS', 'RUASEditor'):
        raise ValueError(f'Checkpoint {path} is of a model of type {show(config.get("type"))}, not of ruas_mm.RUAS.')
    return config, state


def model_in_config(text: Any) -> Any:
    """Read ``model = dict(...)`` in the text of a config, without running it; None if it is not there."""
    try:
        statements = ast.parse(text).body if isinstance(text, str) and len(text) <= _LONGEST_CONFIG else []
        for statement in statements:
            if isinstance(statement, ast.Assign) and [_name(target) for target in statement.targets] == ['model']:
                return _literal(statement.value)
    # More than that is no config. The last two: it is nested deeper than any.
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError):
        pass
    return None


def _name(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def _literal(node: ast.expr) -> Any:
    """Evaluate literals, ``dict(key=literal)`` and ``dict({key: literal})``, which is how mmengine writes configs."""
    if isinstance(node, ast.Call) and _name(node.func) == 'dict':
        items = [
            *node.args,
            ast.Dict([ast.Constant(item.arg) for item in node.keywords], [item.value for item in node.keywords]),
        ]
        return {key: value for item in items for key, value in _literal(item).items()}
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item) for item in node.elts]
    return ast.literal_eval(node)


def _is_type(value: Any, *names: str) -> bool:
    return isinstance(value, str) and value.removeprefix('ruas_mm.') in names


def _build(config: dict, variant: str, state: dict, path: Path) -> RUAS:
    options = {key: config[key] for key in MODEL_OPTIONS if key in config}
    try:
        _check_largest(options)
        for part in [*_PARTS][: 1 + VARIANTS.index(variant)]:
            _check_part(part, options.get(part) or {}, state)
        return RUAS(variant, **options)
    except _Misfit as error:
        raise ValueError(f'Checkpoint {path} {error}.') from None
    except Exception as error:  # a config from elsewhere: TypeError, KeyError, ValueError, …
        reason = shorten(str(error)).rstrip('.') or type(error).__name__
        raise ValueError(f'The model of checkpoint {path} cannot be built: {reason}.') from error


class _Misfit(Exception):
    """Why weights and model do not go together, as the end of a sentence that begins with the checkpoint."""


def _check_part(part: str, options: Any, state: dict) -> None:
    """Check the config of a part against the weights before it is built: it may ask for any number of layers."""
    kind = _PARTS[part]
    if not isinstance(options, dict):
        raise ValueError(f'its {part} must be a dict, got {show(options)}')
    known = inspect.signature(kind).parameters
    if not _is_type(options.get('type', kind.__name__), kind.__name__):
        raise ValueError(f'its {part} must be of type ruas_mm.{kind.__name__}, got {show(options["type"])}')
    for option in options:
        if option != 'type' and option not in known:
            raise ValueError(f'its {part} has an unknown option {show(option)}')
    _check_largest(options)
    values = {name: options.get(name, known[name].default) for name in ('channels', 'stages', 'cells') if name in known}
    for option, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f'{option} of its {part} must be an integer of at least 1, got {show(value)}')
        if option != 'channels':
            for index in range(value):
                _find(state, f'{part}.cells.{index}.fuse.weight')
    window, resolution = options.get('window', 1), options.get('resolution', 1)
    numbers = isinstance(window, int) and isinstance(resolution, (int, float))
    if numbers and values.get('stages', 1) * max(window, _CELL) > _FURTHEST * resolution:
        raise ValueError(f'stages times window / resolution of its {part} must be at most {_FURTHEST}')
    name, channels = _CHANNELS[part], values['channels']
    if part == 'scene_module' and channels != 3:
        raise ValueError(f'channels of its {part} must be 3, as images have, got {show(channels)}')
    if _find(state, name).shape[:1] != (channels,):
        raise _Misfit(f'holds {name} in another shape than that of its model, which has channels={channels}')


def _check_largest(options: dict) -> None:
    for option in _LARGEST.keys() & options.keys():
        if isinstance(options[option], (int, float)) and not options[option] <= _LARGEST[option]:
            raise ValueError(f'{option} must be at most {_LARGEST[option]}, got {show(options[option])}')


def _find(state: dict, name: str) -> Tensor:
    """Return a weight that is a plain tensor of floating-point numbers."""
    if name not in state:
        raise _Misfit(f'lacks {name}')
    value = state[name]
    if not isinstance(value, Tensor):
        raise _Misfit(f'holds {show(value)} as {name}, expected a tensor')
    if value.layout is not torch.strided or value.is_meta or value.is_nested or value.dtype not in _FLOATS:
        kind = 'a meta tensor' if value.is_meta else f'a tensor of {value.dtype} and layout {value.layout}'
        raise _Misfit(f'holds {name} as {kind}, expected floating-point numbers of 16 bits or more')
    return value


def _load_state(model: RUAS, state: dict[str, Tensor], path: Path) -> None:
    """Load the weights; those of parts that the variant does not use, and of losses, are left out."""
    parts = tuple(f'{part}.' for part in _PARTS if getattr(model, part) is not None)
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith(parts)}
    given = {}
    try:
        for name in wanted:
            value, shape = _find(state, name).detach(), tuple(wanted[name].shape)
            if value.shape != shape:
                raise _Misfit(f'holds {name} in another shape than {shape}, that of its model')
            given[name] = value.to(wanted[name].dtype)
            if not given[name].isfinite().all():
                raise _Misfit(f'holds NaN or infinity in {name}')
        for name in state:
            if isinstance(name, str) and name.startswith(parts) and name not in wanted:
                raise _Misfit(f'has, unlike its model, {shorten(name)}')
    except _Misfit as error:
        raise ValueError(f'Checkpoint {path} {error}.') from None
    model.load_state_dict(given, strict=False)
