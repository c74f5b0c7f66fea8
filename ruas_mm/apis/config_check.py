"""Mistakes in a config that can be told before anything is built: misspelt keys, values without sense."""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ruas_mm.apis.run_tool import unknown_option

# What mmengine's Runner and the tools of the hosts read in a config beside the arguments of Runner.
_TOP = {
    'activation_checkpointing',
    'backend_args',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}
# Keys that a builder takes out before it calls the class.
_BUILDER = {'_delete_', '_scope_', 'type'}
_TAKEN = {
    'hook': {'priority'},
    'optim_wrapper': {'constructor', 'paramwise_cfg'},
    'parameter scheduler': {'convert_to_iter_based'},
}
_LOADER = {*inspect.signature(DataLoader).parameters, 'dataset', 'num_batch_per_epoch'}
# Dicts without a type whose keys are known, by the end of their path.
_KNOWN: dict[str, set[str]] = {
    'dataloader': _LOADER,
    'randomness': set(inspect.signature(Runner.set_randomness).parameters) - {'self'},
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
}
# Where a type is looked up, by the first fitting pattern of its path. The rest is a part of the model.
_REGISTRIES = [
    (re.compile(pattern), getattr(registries, name))
    for pattern, name in (
        (r'hooks\.\w+$', 'HOOKS'),
        (r'(pipeline|transforms)(\.\w+)*\.\d+$', 'TRANSFORMS'),
        (r'sampler$', 'DATA_SAMPLERS'),
        (r'dataset$', 'DATASETS'),
        (r'evaluator(\.metrics)?(\.\d+)?$', 'METRICS'),
        (r'optim_wrapper$', 'OPTIM_WRAPPERS'),
        (r'optimizer$', 'OPTIMIZERS'),
        (r'param_scheduler(\.\d+)?$', 'PARAM_SCHEDULERS'),
        (r'^(train|val|test)_cfg$', 'LOOPS'),
        (r'^visualizer$', 'VISUALIZERS'),
        (r'vis_backends\.\d+$', 'VISBACKENDS'),
        (r'^log_processor$', 'LOG_PROCESSORS'),
        (r'^(model|tta_model)\.(train|test)_cfg\b|anchor_generator$|bbox_coder$', 'TASK_UTILS'),
        (r'^(model|tta_model|data_preprocessor)\b', 'MODELS'),
    )
]
_CLOSE = 0.8  # a new key that resembles one that is there this much is a misspelling


# --- Keys -------------------------------------------------------------------------------------------------------------


def check_overrides(config: Config, overrides: dict[str, Any]) -> list[str]:
    """Refuse overrides (``--cfg-options``) of keys that nothing reads.

    A key that the config does not spell out is accepted if its first part is an argument of mmengine's ``Runner``, and

    * in a dict with a type: the class has such an option, or takes any;
    * in a dict without a type whose keys are known, as those of data loaders: it is one of them;
    * in another dict: it resembles none of the keys there. It is a remark then.

    Args:
        config (Config): The config before they are merged.
        overrides (dict[str, Any]): Value by dotted key.

    Returns:
        list[str]: Remarks for the user.

    Raises:
        ValueError: If a key is refused; the message names it and the closest existing key.
    """
    remarks = []
    for key in overrides:
        # What other overrides add counts as there: model.neck.type=X model.neck.option=1.
        given = {other.split('.')[-1]: value for other, value in overrides.items() if _parent(other) == _parent(key)}
        remark = _check_key(config, key, given)
        if remark:
            remarks.append(remark)
    return remarks


def _parent(key: str) -> str:
    return key.rpartition('.')[0]


def _check_key(config: Config, key: str, given: dict[str, Any]) -> str:
    node: Any = config._cfg_dict
    parts = key.split('.')
    if parts[0] in node and parts[0] not in read_keys():
        used = [f'{path}.{parts[0]}' for path, part in _dicts(node) if path and parts[0] in part]
        hint = f': set {" or ".join(used[:4])}' if used else ''
        return f'--cfg-options {key} changes a variable of the config file that has been used already{hint}.'
    for index, part in enumerate(parts):
        path, last = '.'.join(parts[:index]), index == len(parts) - 1
        if isinstance(node, dict):
            if part not in node:
                return _check_new(config, node, key, path, part, given if last else {})
            node = node[part]
        elif isinstance(node, (list, tuple)):
            if isinstance(node, tuple) or not part.isdigit():
                raise ValueError(f'--cfg-options {key}: {path} is a {type(node).__name__}; give all of it.')
            if int(part) >= len(node):
                raise ValueError(f'--cfg-options {key}: {path} has {len(node)} items, the first of them {path}.0.')
            node = node[int(part)]
        elif node is None:
            return ''  # a dict takes its place
        else:
            raise ValueError(f'--cfg-options {key}: {path} is {node!r}, which has no parts.')
    return ''


def _check_new(config: Config, node: dict, key: str, path: str, part: str, given: dict[str, Any]) -> str:
    """Decide on a key that is not there: return a remark, or nothing, or raise an error."""
    if part in _BUILDER:
        return ''
    if not path:
        return (
            '' if part in read_keys() else _refuse(key, part, path, {*node, *read_keys()}, 'mmengine reads no such key')
        )
    if path in ('default_hooks', 'custom_keys') or path.endswith(('.custom_keys', 'metainfo')):
        return ''  # names that the user chooses
    kind = given.get('type', node.get('type'))
    if kind is not None:
        registry, cls = find_class(config, path, kind)
        options = None if cls is None else _options(cls)
        if options is not None:
            options |= _TAKEN.get(registry.name, set())
            return '' if part in options else _refuse(key, part, path, options, f'{cls.__name__} has no such option')
        if cls is not None:
            return ''  # it takes any; what it cannot use is found when it is built
    known = next((keys for end, keys in _KNOWN.items() if path.endswith(end)), None)
    if known is not None:
        return '' if part in known else _refuse(key, part, path, known, f'{path} takes no such key')
    if difflib.get_close_matches(part, node, 1, _CLOSE):
        return _refuse(key, part, path, set(node), f'{path} has no such key')
    return f'--cfg-options {key} is new: {path} has the keys {", ".join(map(str, node)) or "none"}.'


def read_keys() -> set[str]:
    """Return the keys at the top of a config that mmengine or a host's tools read; others are variables."""
    return {*inspect.signature(Runner.__init__).parameters, *_TOP} - {'self', 'cfg'}


def _refuse(key: str, part: str, path: str, options: set[str], why: str) -> str:
    close = difflib.get_close_matches(part, [str(option) for option in options], 1, 0.5)
    prefix = f'{path}.' if path else ''
    hint = f'; did you mean {prefix}{close[0]}?' if close else f'; there are {", ".join(sorted(map(str, options)))}.'
    raise ValueError(f'--cfg-options {key}: {why}{hint}')


def find_class(config: Config, path: str, kind: Any) -> tuple[Registry | None, Any]:
    """Find the class that a type in a config stands for.

    Args:
        config (Config): The config; its default scope counts.
        path (str): Dotted path of the dict that has the type.
        kind (Any): The type: a name, or the class itself.

    Returns:
        tuple[Registry | None, Any]: Where it is looked up, and the class; None if there is none, or the place is
            unknown.
    """
    registry = next((registry for pattern, registry in _REGISTRIES if pattern.search(path)), None)
    if not isinstance(kind, str):
        return registry, kind if callable(kind) else None
    if registry is None:
        return None, None
    scope = config.get('default_scope') or 'mmengine'
    try:
        with registry.switch_scope_and_registry(scope) as scoped:
            return registry, scoped.get(kind)
    except ImportError:  # a host is missing: said when the part is built
        return registry, None


def _options(cls: Any) -> set[str] | None:
    """Return the options of a class or function; None if it takes any."""
    try:
        parameters = inspect.signature(cls).parameters
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return set(parameters)


# --- Values -----------------------------------------------------------------------------------------------------------


_DICTS = re.compile(
    r'(model|tta_model|(\w+_)?dataloader(\.(dataset|sampler))?|(train|val|test)_cfg|optim_wrapper(\.(optimizer|clip_grad|'
    r'paramwise_cfg))?|env_cfg|randomness|default_hooks(\.\w+)?|visualizer|log_processor|auto_scale_lr)'
)
_LISTS = re.compile(r'custom_hooks|.*\bpipeline')


def check_values(config: Config) -> None:
    """Refuse values that end in an error of another part, hours later perhaps.

    Args:
        config (Config): The config to run.

    Raises:
        ValueError: If a value has no sense or the optimizer is unknown; the message names key, value and what is
            expected.
    """
    for path, key, value in _leaves(config._cfg_dict):
        expected = _expected(path, key, value)
        if expected:
            full = f'{path}.{key}' if path else key
            raise ValueError(f'{full} must be {expected}, got {value!r}.')
    scope = config.get('default_scope')
    if scope and not _is_scope(str(scope)):
        raise ValueError(f'default_scope must be the name of an installed toolbox, got {scope!r}.')
    for path, node in _dicts(config._cfg_dict):
        if path.endswith('optimizer') and 'type' in node:
            registry, cls = find_class(config, path, node['type'])
            if registry is not None and cls is None:
                close = difflib.get_close_matches(str(node['type']).rpartition('.')[2], registry.module_dict, 1)
                hint = f'; did you mean {close[0]!r}?' if close else '.'
                raise ValueError(
                    f'{path}.type must be an optimizer of torch or of a toolbox, got {node["type"]!r}{hint}'
                )
            options = None if cls is None else _options(cls)
            for option in node:
                if options is not None and option not in options | _BUILDER:
                    raise ValueError(unknown_option(cls, option, path))


def _is_scope(name: str) -> bool:
    roots = [registry for registry in vars(registries).values() if isinstance(registry, Registry)]
    if name in {'mmengine', *(child for registry in roots for child in registry.children)}:
        return True
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # not the name of a package
        return False


def check_work_dir(folder: str) -> None:
    """Make the work directory, or say why it cannot be used.

    Args:
        folder (str): Its path.

    Raises:
        OSError: If it is a file or cannot be written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f'The work directory {folder} must be a folder, but it or a part of it is a file.'
        ) from None
    except OSError as error:
        raise OSError(f'The work directory {folder} cannot be made: {error.strerror}.') from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f'The work directory {folder} must be writable, but it is read-only.')


def _dicts(node: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Yield every dict with its dotted path."""
    if isinstance(node, dict):
        yield path, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in items:
        if isinstance(value, (dict, list, tuple)):
            yield from _dicts(value, f'{path}.{key}' if path else str(key))


def _leaves(node: dict) -> Iterator[tuple[str, str, Any]]:
    for path, part in _dicts(node):
        for key, value in part.items():
            if not isinstance(value, dict):
                yield path, str(key), value


def _expected(path: str, key: str, value: Any) -> str:
    """Say what a value must be, if that is no dict; nothing if it is fine."""
    full = f'{path}.{key}' if path else key
    if value is not None and _DICTS.fullmatch(full) and not (key.endswith('dataloader') and isinstance(value, list)):
        return '' if isinstance(value, list) and key == 'optimizer' else 'a dict'
    if value is not None and _LISTS.fullmatch(full) and not isinstance(value, (list, tuple)):
        return 'a list'
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    whole = number and (isinstance(value, int) or value.is_integer())
    if path.endswith('dataloader'):
        if key == 'batch_size':
            return '' if whole and value >= 1 else 'a whole number of at least 1'
        if key == 'num_workers':
            return '' if whole and value >= 0 else 'a whole number of at least 0'
    if path in ('train_cfg', '') and key in ('max_epochs', 'max_iters', 'val_interval') and value is not None:
        return '' if whole and value >= 1 else 'a whole number of at least 1'
    if path.endswith('optimizer') and key in ('lr', 'weight_decay') and value is not None:
        if key == 'lr' and value == 'auto' and not path.startswith('optim_wrapper'):
            return ''  # of CooperativeSearchHook
        return '' if number and math.isfinite(value) and value >= 0 else 'a number of at least 0'
    if path == 'default_hooks.logger' and key == 'interval':
        return '' if whole and value >= 1 else 'a whole number of at least 1'
    if path == 'default_hooks.checkpoint' and key in ('interval', 'max_keep_ckpts'):
        return '' if whole else 'a whole number'
    if path == 'randomness' and key == 'seed' and value is not None:
        return '' if whole and 0 <= value < 2**32 else 'a whole number from 0 to 4294967295'
    if not path and key == 'log_level':
        levels = ('DEBUG', 'INFO', 'WARNING', 'ERROR')
        return '' if value in levels else f'one of {", ".join(levels)}'
    return ''
