"""The configs that are installed with the package, by name."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).parents[1] / '.mim' / 'configs'


def shipped_configs() -> list[str]:
    """Return the names of the configs of this package, such as ``detection/ruas_ssd_demo``."""
    names = (path.relative_to(FOLDER).with_suffix('').as_posix() for path in FOLDER.glob('*/*.py'))
    return sorted(name for name in names if not name.startswith('_'))


def find_config(config: str) -> str:
    """Return the path of a config.

    Args:
        config (str): Path of a config file, or the name of one of this package, with or without ``.py``. A file of
            that path comes first.

    Returns:
        str: The path.

    Raises:
        FileNotFoundError: If there is neither.
    """
    if os.path.lexists(config):
        return config
    name, names = config.removesuffix('.py'), shipped_configs()
    if name in names:
        return str(FOLDER / f'{name}.py')
    close = difflib.get_close_matches(name, names, 1)
    hint = f'; did you mean {close[0]}?' if close else ', such as detection/ruas_ssd_demo.'
    raise FileNotFoundError(f'Config {config} is neither a file nor the name of a config of ruas_mm{hint}')
