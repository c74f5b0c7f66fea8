"""Checkpoints of ``ruas_mm.RUAS`` and ``ruas_mm.RUASEditor`` as models that are ready to enhance."""

from __future__ import annotations

import ast
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ruas_mm.models.enhance import RUAS
from ruas_mm.models.enhance.ruas import VARIANTS
from ruas_mm.utils.checkpoint import load_from_local
from ruas_mm.utils.fileio import atomic_write
from ruas_mm.version import __version__

_WEIGHTS = Path(__file__).parents[1] / 'weights'
_PARTS = {'scene_module': 'SceneModule', 'noise_removal': 'NoiseRemoval', 'noise_estimator': 'NoiseEstimator'}
# What enhances. Losses do not, and a checkpoint should not decide which other classes are built.
MODEL_OPTIONS = ('genotype', 'epsilon', 'border', *_PARTS)


def shipped_weights(variant: str) -> Path:
    """Return the weights that come with the package.

    Args:
        variant (str): ``S``, ``full`` or ``A``.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If there are none.
    """
    path = _WEIGHTS / f'ruas_{variant.lower()}.pth'
    if not path.is_file():
        raise FileNotFoundError(
            f'No weights of variant {variant!r} come with this version of ruas_mm; name a checkpoint, '
            "your own or the authors', converted by tools/model_converters/from_official.py."
        )
    return path


def load_enhancer(checkpoint: str | Path | None = None, variant: str | None = None, stages: int | None = None) -> RUAS:
    """Load a model to enhance with.

    The model is built as the checkpoint says: in ``meta['model']``, which ``from_official.py`` writes, or in
    ``meta['cfg']``, which a training writes. No code from the file is run.

    Args:
        checkpoint (str | Path, optional): The file; by default the shipped weights.
        variant (str, optional): ``S``, ``full`` or ``A``, as far as the checkpoint has the parts; by default its own,
            and ``A`` of the shipped weights.
        stages (int, optional): Number of stages of the scene module to use, the first ones; by default all.

    Returns:
        RUAS: The model, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: If the file does not exist or no weights are shipped.
        CheckpointError: If the file is no checkpoint, damaged, or refused.
        ValueError: If it holds no such model, or an option has no such value.
    """
    if variant is not None and variant not in VARIANTS:
        raise ValueError(f'RUAS has no variant {variant!r}; choose from {", ".join(VARIANTS)}.')
    path = shipped_weights(variant or 'A') if checkpoint is None else Path(checkpoint)
    content = load_from_local(path, 'cpu')
    config, state = read_model(content, path)
    held = config.get('variant', 'A')
    if held not in VARIANTS:
        raise ValueError(f'Checkpoint {path} is of an unknown variant {held!r}.')
    variant = variant or held
    if VARIANTS.index(variant) > VARIANTS.index(held):
        raise ValueError(f'Checkpoint {path} is of variant {held!r}, which lacks a part that {variant!r} needs.')
    model = _build(config, variant, path)
    _load_state(model, state, path)
    trained = len(model.scene_module.cells)
    if stages is not None and not 1 <= stages <= trained:
        raise ValueError(f'Checkpoint {path} has {trained} stages, so stages must be 1 to {trained}, not {stages}.')
    del model.scene_module.cells[stages or trained :]
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
    config = meta.get('model') or _model_of(meta.get('cfg'))
    if not isinstance(config, dict):
        raise ValueError(
            f'Checkpoint {path} does not say how its model is built: "meta" has neither "model" nor "cfg".'
        )
    if str(config.get('type')).removeprefix('ruas_mm.') not in ('RUAS', 'RUASEditor'):
        raise ValueError(f'Checkpoint {path} is of a {config.get("type")}, not of ruas_mm.RUAS.')
    return config, state


def _model_of(text: Any) -> Any:
    """Read ``model = dict(...)`` in the text of a config, without running it; None if it is not there."""
    try:
        statements = ast.parse(text).body if isinstance(text, str) else []
        for statement in statements:
            if isinstance(statement, ast.Assign) and [ast.unparse(name) for name in statement.targets] == ['model']:
                return _literal(statement.value)
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError):  # more than that is no config
        pass
    return None


def _literal(node: ast.expr) -> Any:
    """Evaluate literals, ``dict(key=literal)`` and ``dict({key: literal})``, which is how mmengine writes configs."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict':
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


def _build(config: dict, variant: str, path: Path) -> RUAS:
    options = {key: config[key] for key in MODEL_OPTIONS if key in config}
    try:
        for part, name in _PARTS.items():
            kind = (options.get(part) or {}).get('type', name)
            if str(kind).removeprefix('ruas_mm.') != name:
                raise ValueError(f'its {part} is a {kind}')
        return RUAS(variant, **options)
    except Exception as error:  # a config from elsewhere: TypeError, KeyError, ValueError, …
        raise ValueError(f'The model of checkpoint {path} cannot be built: {error}') from error


def _load_state(model: RUAS, state: dict[str, Tensor], path: Path) -> None:
    """Load the weights; those of parts that the variant does not use, and of losses, are left out."""
    parts = tuple(f'{part}.' for part in _PARTS if getattr(model, part) is not None)
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith(parts)}
    given = {name: value for name, value in state.items() if str(name).startswith(parts)}
    for name in wanted | given:
        if name not in given or name not in wanted:
            raise ValueError(f'Checkpoint {path} {"lacks" if name in wanted else "has, unlike its model,"} {name}.')
        value, shape = given[name], tuple(wanted[name].shape)
        if not isinstance(value, Tensor) or value.shape != shape:
            raise ValueError(f'Checkpoint {path} holds {name} in another shape than {shape}, that of its model.')
        if not value.isfinite().all():
            raise ValueError(f'Checkpoint {path} holds NaN or infinity in {name}.')
    model.load_state_dict(given, strict=False)
