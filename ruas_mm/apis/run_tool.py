"""Run a command line tool: each error is one sentence, and Ctrl-C and SIGTERM let it clean up."""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

import mmengine.registry
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import Registry

_PACKAGE = str(Path(__file__).parents[1])
_REGISTRY = str(Path(mmengine.registry.__file__).parent)
# Errors of these kinds, raised by this package or by mmengine's look-up of a type, name what was wrong.
_EXPLAINED = (ValueError, OSError, ImportError, RuntimeError, KeyError)
# How torch begins the message of an error in a worker process; the message holds that process's traceback.
_WORKER = re.compile(r'Caught (\w+) in DataLoader worker process')
_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")
_UNKNOWN_TYPE = re.compile(r'(?P<type>\S+) is not in the (?P<where>.+?) registry\.')
_LONGEST = 600  # characters of a message that was not written for a person
_RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


def add_debug_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--debug``, which :func:`run_tool` looks for on the command line.

    Args:
        parser (argparse.ArgumentParser): Parser to extend.
    """
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool and end the process as a user expects.

    * An error is one sentence on stderr, and the exit status is 1. The traceback goes to the log file of the run, if
      there is one; with ``--debug`` it is printed.
    * Ctrl-C is one line, and the exit status is 130. A tool that knows how to go on says so by raising
      ``KeyboardInterrupt('To go on: …')`` where it catches one.
    * SIGTERM raises ``SystemExit(143)``, so that ``finally`` blocks run and temporary files are removed.
    * Worker processes leave both signals to the tool. A second Ctrl-C or SIGTERM ends the tool at once.
    * Of several processes rank 0 speaks; another one does only for an error that no other has reported.

    Args:
        main (Callable): The tool.
    """
    with _signals():
        try:
            with unmasked_interrupts():
                main()
        except KeyboardInterrupt as stop:
            _exit(130, ' '.join(['Interrupted.', *map(str, stop.args)]), alone=True)
        except SystemExit as stop:
            if not isinstance(stop.code, str):
                raise
            _exit(1, stop.code)
        except Exception as error:
            log = _keep_traceback(error)
            if '--debug' in sys.argv:
                traceback.print_exc()
            _exit(1, describe(error) if is_explained(error) else f'{describe(error)}\n{_where_the_traceback_is(log)}')


@contextmanager
def unmasked_interrupts() -> Iterator[None]:
    """Raise a ``KeyboardInterrupt`` or ``SystemExit`` again that a library has turned into another exception.

    mmengine does so while it formats a config, which it does for every checkpoint.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, (KeyboardInterrupt, SystemExit)):
                raise cause from None
            cause = cause.__context__
        raise


def describe(error: BaseException) -> str:
    """Put an error into one sentence.

    Args:
        error (BaseException): An exception that was raised.

    Returns:
        str: ``Error: …``, with the message of an error that this package raised on purpose; otherwise with type and
            message, the config file and line that was being read, or the part of the config that was being built.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if is_explained(error):
        message = _message_and_origin(error)[0]
        unknown = _UNKNOWN_TYPE.match(message)
        return f'Error: {_unknown_type(unknown, frames) if unknown else message}'
    kind, message = type(error).__name__, _message(error)
    if worker := _WORKER.match(message):
        kind, message = worker[1], _message_and_origin(error)[0]
    if isinstance(error, SyntaxError):
        message = error.msg
    message = ' '.join(message.split())
    if len(message) > _LONGEST:
        message = f'{message[:_LONGEST]} …'
    file = _config_in_reading(error, frames)
    if file:
        return f'Error: {file} cannot be read as a config: {kind}: {message.rstrip(".")}.'
    part = _part_in_building(frames)
    if part:
        path, cls, bound = part
        unexpected = _UNEXPECTED.search(message)
        if unexpected and not bound:
            return f'Error: {unknown_option(cls, unexpected[1], path)}'
        return f'Error: {path or cls.__name__} cannot be built: {kind}: {message.rstrip(".")}.'
    return f'Error: {kind}: {message.rstrip(".")}.' if message else f'Error: {kind}.'


def unknown_option(cls: Any, option: str, path: str = '') -> str:
    """Say that a class has no such option.

    Args:
        cls (Any): Class or function.
        option (str): The option it does not have.
        path (str): Where it stands in the config. Defaults to an unknown place.

    Returns:
        str: A sentence with the option that comes closest, or with all options.
    """
    options = [name for name in inspect.signature(cls).parameters if name != 'self']
    close = difflib.get_close_matches(option, options, 1)
    hint = f'did you mean {close[0]!r}?' if close else f'its options are {", ".join(options) or "none"}.'
    place = f' ({path})' if path else ''
    return f'{cls.__name__}{place} has no option {option!r}; {hint}'


def is_explained(error: BaseException) -> bool:
    """Return whether this package, or mmengine's look-up of a type, raised an error on purpose.

    Args:
        error (BaseException): An exception that was raised.
    """
    return isinstance(error, _EXPLAINED) and _message_and_origin(error)[1].startswith((_PACKAGE, _REGISTRY))


# --- Signals ----------------------------------------------------------------------------------------------------------

_tool: int | None = None  # id of the process that runs one


@contextmanager
def _signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise an exception once; a second one has its ordinary effect, which is to end."""
    global _tool
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(143)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):  # not what nohup or a caller has set
            signal.signal(number, stop)
    _tool, outer = os.getpid(), _tool
    try:
        yield
    finally:
        _tool = outer
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_signals_to_the_tool() -> None:
    """In a forked worker: Ctrl-C reaches the whole group of processes, but the tool ends its workers itself."""
    if _tool is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.excepthook = _say_unless_the_tool_has_gone


def _say_unless_the_tool_has_gone(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In a worker: no traceback of the thread that hands tensors over, if the tool ended while it did."""
    threads = [frame.filename for frame in traceback.extract_tb(trace) if 'multiprocessing' in frame.filename]
    if not (isinstance(error, (ConnectionError, EOFError)) and threads):
        sys.__excepthook__(kind, error, trace)


os.register_at_fork(after_in_child=_leave_signals_to_the_tool)


# --- Speaking ---------------------------------------------------------------------------------------------------------


def _exit(status: int, message: str, alone: bool = False) -> NoReturn:
    """Say a message, unless another process has, and end.

    Args:
        status (int): Exit status.
        message (str): What to say.
        alone (bool): Whether only rank 0 says it. Otherwise another rank does too, if it is news.
    """
    rank = int(next((os.environ[name] for name in _RANKS if name in os.environ), 0))
    if rank == 0 if alone else _is_news(message, rank):
        print(message if rank == 0 else f'{message} (rank {rank})', file=sys.stderr)
    sys.exit(status)


def _is_news(message: str, rank: int) -> bool:
    """Return whether no other process has said this."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return rank == 0  # before the processes join, each meets the same errors
    with suppress(Exception):  # the process that keeps the store may have gone
        return dist.distributed_c10d._get_default_store().add(f'ruas_mm/error/{message}', 1) == 1
    return True


def _keep_traceback(error: BaseException) -> str | None:
    """Append the traceback to the log file of the run; return the file's path, None if there is none."""
    log = MMLogger.get_current_instance().log_file if MMLogger._instance_dict else None
    if log is None or not os.path.isfile(log):
        return None
    try:
        with open(log, 'a', encoding='utf-8', errors='backslashreplace') as file:
            file.writelines(traceback.format_exception(type(error), error, error.__traceback__))
    except OSError:  # such as the full disk that the error is about
        return None
    return log


def _where_the_traceback_is(log: str | None) -> str:
    return f'The traceback is in {log}; --debug prints it.' if log else 'The option --debug prints the traceback.'


# --- Looking into errors ----------------------------------------------------------------------------------------------


def _message(error: BaseException) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _message_and_origin(error: BaseException) -> tuple[str, str]:
    """Return an error's message and the file that raised it, in whatever process."""
    message = _message(error)
    frames = traceback.extract_tb(error.__traceback__)
    origin = frames[-1].filename if frames else ''
    if _WORKER.match(message):  # torch packs the traceback of the other process into the message
        files = re.findall('^  File "(.+?)", line', message, re.MULTILINE)
        origin = files[-1] if files else origin
        last = re.split(r'^  .*\n', message.rstrip(), flags=re.MULTILINE)[-1]  # what follows the traceback's lines
        message = last.partition(': ')[2] or last
    return message, origin


def _config_in_reading(error: BaseException, frames: list[FrameType]) -> str:
    """Return the config file that was being read, and the line if that is known; empty if none was."""
    files = [
        str(frame.f_locals['filename'])
        for frame in frames
        if frame.f_code.co_name in ('fromfile', '_is_lazy_import', '_file2dict', '_parse_lazy_import')
        and frame.f_locals.get('filename')
    ]
    if not files:
        return ''
    file = files[-1]
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    if isinstance(error, SyntaxError) and error.lineno:
        lines.append(error.lineno)
    inherited = f' (a base of {files[0]})' if os.path.abspath(files[0]) != os.path.abspath(file) else ''
    return f'{file}{f", line {lines[-1]}," if lines else ""}{inherited}'


def _part_in_building(frames: list[FrameType]) -> tuple[str, Any, bool] | None:
    """Return the part of the config that was being built.

    Returns:
        tuple[str, Any, bool] | None: Its dotted path, empty if that is unknown; its class; and whether the class had
            been called, and did not refuse the options themselves.
    """
    for index in reversed(range(len(frames))):
        frame = frames[index]
        cls = frame.f_locals.get('obj_cls')
        if frame.f_code.co_name == 'build_from_cfg' and frame.f_code.co_filename.startswith(_REGISTRY) and cls:
            return _path_in_config(frame.f_locals['cfg'], frames) or '', cls, index < len(frames) - 1
    return None


def _unknown_type(found: re.Match, frames: list[FrameType]) -> str:
    """Say that a registry does not know a type, where it stands, and which one comes closest."""
    kind, names, path = found['type'], [], None
    for frame in frames:
        registry = frame.f_locals.get('registry')
        if isinstance(registry, Registry) and frame.f_code.co_filename.startswith(_REGISTRY):
            path = _path_in_config(frame.f_locals.get('cfg'), frames)
            while registry is not None:
                names += registry.module_dict
                registry = registry.parent
    close = difflib.get_close_matches(kind.rpartition('.')[2], names, 1)
    place = f' ({path}.type)' if path else ''
    return f'{kind}{place} is not in the {found["where"]} registry{f"; did you mean {close[0]!r}?" if close else "."}'


def _path_in_config(part: Any, frames: list[FrameType]) -> str | None:
    """Return the dotted path of what is being built in the config that is in use."""
    configs = [value for frame in frames for value in frame.f_locals.values() if isinstance(value, Config)]
    if not configs or not isinstance(part, (dict, Config)) or 'type' not in part:
        return None
    path = _path_of(part, configs[0]._cfg_dict)
    if path is None:  # the builder has taken options out of it
        path = _path_of({'type': part['type']}, configs[0]._cfg_dict, types_only=True)
    return path


def _path_of(part: Any, node: Any, path: str = '', types_only: bool = False) -> str | None:
    """Return the dotted path of a part of a config: of the first dict that holds nothing else than the part."""
    if isinstance(node, dict):
        compared = ['type'] if types_only else [key for key in node if key != 'priority']
        if 'type' in node and all(key in part and part[key] == node[key] for key in compared):
            return path
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        return None
    found = (_path_of(part, value, f'{path}.{key}' if path else str(key), types_only) for key, value in items)
    return next((path for path in found if path is not None), None)
