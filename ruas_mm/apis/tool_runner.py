"""mmengine's runner as the tools use it: a short log on the terminal, and checkpoints that must fit the model."""

from __future__ import annotations

import logging
import sys
import textwrap
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner

from ruas_mm.apis.enhancer_checkpoint import model_in_config
from ruas_mm.search import Genotype
from ruas_mm.search.slots import SearchSlots
from ruas_mm.utils.checkpoint import CheckpointError, load_from_local

_HOSTS = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmagic')
_LOGGING = ('logging', 'mmengine.logging.logger')
# What a host says that a person wants to read: progress, figures, files. All of it stands in the log file.
_SHOWN_MODULES = ('hooks', 'evaluation', 'evaluator', 'engine')
_SHOWN_FUNCTIONS = ('load_checkpoint', 'resume', 'scale_lr')
_HIDDEN_MESSAGES = ('Exp name: ',)


class ToolRunner(Runner):
    """Runner of the command line tools.

    * The terminal shows progress, figures, files, warnings and whatever code outside the hosts logs; the config, the
      environment, tables of hooks and options of parameters go to the log file alone. ``log_level='DEBUG'`` shows all.
    * A checkpoint to resume from or to test must fit the model weight by weight, and be of the same genotype.

    Args:
        *args (Any): As of :class:`mmengine.runner.Runner`.
        **kwargs (Any): As of :class:`mmengine.runner.Runner`.
    """

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """Build the logger and shorten what the terminal shows; see ``mmengine.Runner.build_logger``."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.addFilter(_LostLog(handler))
            elif log_level != 'DEBUG':
                handler.addFilter(is_for_a_person)
        if logger.log_file:
            logger.info(f'The log is {logger.log_file}.')
        return logger

    def test(self) -> dict:
        """Test the model; see ``mmengine.Runner.test``."""
        # Or a hook that asks for the iteration, as mmagic's does, lets mmengine build the loop and load the training
        # data.
        self._train_loop = None
        return super().test()

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict:
        """Load a checkpoint; to go on from it or to test it, all of it.

        Args:
            filename (str): The file.
            *args (Any): As of ``mmengine.Runner.load_checkpoint``.
            **kwargs (Any): As of ``mmengine.Runner.load_checkpoint``.

        Returns:
            dict: What the file holds.

        Raises:
            ValueError: If the model has a weight that the checkpoint lacks or the other way round, or if it is of
                another genotype.
            CheckpointError: If the file cannot be loaded.
        """
        testing = self._train_loop is None
        if not (self._resume or testing):
            return super().load_checkpoint(filename, *args, **kwargs)
        what = f'Training cannot go on from {filename}' if self._resume else f'{filename} cannot be tested'
        try:
            checkpoint = super().load_checkpoint(filename, *args, **{**kwargs, 'strict': True})
        except RuntimeError as error:
            if isinstance(error, CheckpointError) or not str(error).startswith('The model and loaded state dict'):
                raise
            if _is_of_a_search(filename):
                raise ValueError(f'{what} with this config: it is a checkpoint of a search.') from None
            mismatch = next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), str(error))
            mismatch = textwrap.shorten(mismatch, 300, placeholder=' …')
            raise ValueError(f'{what}: it is of another model than the config: {mismatch}') from None
        self._compare_genotypes(checkpoint, what)
        return checkpoint

    def _compare_genotypes(self, checkpoint: dict, what: str) -> None:
        """Refuse a checkpoint of other operations: some have weights of the same shapes."""
        config = model_in_config((checkpoint.get('meta') or {}).get('cfg'))
        for name, module in self.model.named_modules():
            if not isinstance(module, SearchSlots) or module.searchable:
                continue
            trained = _genotype_of(config, name)
            for slot, operation in module.derive().items():
                if trained.get(slot, operation) != operation:
                    raise ValueError(
                        f'{what}: it is of another genotype than the config: its slot {slot!r} is {trained[slot]!r}, '
                        f'not {operation!r}.'
                    )


def is_for_a_person(record: logging.LogRecord) -> bool:
    """Return whether the terminal shows a message; a filter for its handler.

    Args:
        record (logging.LogRecord): The message, while it is being logged.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get('__name__') in _LOGGING:
        frame = frame.f_back
    module, function = frame.f_globals.get('__name__', ''), frame.f_code.co_name
    if module.partition('.')[0] not in _HOSTS:
        return True
    message = record.getMessage()
    if record.levelno != logging.INFO:
        return 'will be deprecated in' not in message  # addressed to the hosts' authors
    if message.startswith(_HIDDEN_MESSAGES):
        return False
    return function in _SHOWN_FUNCTIONS or not set(_SHOWN_MODULES).isdisjoint(module.split('.'))


class _LostLog(logging.Filter):
    """Lets the handler of a log file say once that the file cannot be written, and not with a traceback each time."""

    def __init__(self, handler: logging.FileHandler) -> None:
        super().__init__()
        self.said = False
        self.path = handler.baseFilename
        handler.handleError = self.handle_error

    def handle_error(self, record: logging.LogRecord) -> None:
        if not self.said:
            self.said = True
            print(f'Warning: the log {self.path} cannot be written: {sys.exc_info()[1]}', file=sys.stderr)


def _is_of_a_search(filename: str) -> bool:
    try:
        return 'ruas_search' in load_from_local(filename, 'cpu')
    except (CheckpointError, OSError, TypeError):  # such as a URL
        return False


def _genotype_of(config: Any, module: str) -> dict[str, str]:
    """Return the slots that a model's config decides for one of its modules; none if it does not say."""
    genotype = None
    for key in module.split('.'):
        if key == 'module':  # of a wrapper: for test-time augmentation, for several processes
            continue
        if not isinstance(config, dict):
            break
        genotype = config.get('genotype', genotype)
        config = config.get(key)
    if isinstance(genotype, str):
        try:
            return Genotype.load(genotype).slots
        except (OSError, ValueError):  # a file that has gone since; the weights have been compared
            return {}
    return genotype if isinstance(genotype, dict) else {}
