"""How a tool ends: errors in one sentence, Ctrl-C and SIGTERM with a clean end, and one voice of several processes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from multiprocessing import Pipe
from pathlib import Path

import mmengine.hooks  # noqa: F401  (registers them)
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS, OPTIMIZERS, DefaultScope

from ruas_mm.apis.run_tool import _say_unless_the_tool_has_gone, run_tool
from ruas_mm.search import Genotype

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_run_before(monkeypatch):
    """Neither the log file nor the scope of a run that another test has left."""
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())


# --- Errors -----------------------------------------------------------------------------------------------------------


def end_of(main, capsys, *flags):
    """Run a tool; return its exit status and what it says on stderr."""
    argv, sys.argv = sys.argv, ['tool', *flags]
    try:
        with pytest.raises(SystemExit) as caught:
            run_tool(main)
    finally:
        sys.argv = argv
    return caught.value.code, capsys.readouterr().err


def read(text, tmp_path, suffix='.py'):
    def main():
        path = tmp_path / f'config{suffix}'
        path.write_text(text)
        Config.fromfile(path)

    return main


def build(registry, part):
    def main():
        config = Config({'parts': [{'type': 'CheckpointHook'}, part]})
        registry.build(config.parts[1])

    return main


def divide():
    return 1 / 0


def test_error_of_this_package_is_its_own_sentence(capsys):
    status, said = end_of(lambda: Genotype.load('nowhere.json'), capsys)
    assert status == 1
    assert said.startswith('Error: ') and 'nowhere.json' in said and said.count('\n') == 1


def test_foreign_error_has_type_message_and_a_way_to_the_traceback(capsys):
    status, said = end_of(divide, capsys)
    assert status == 1
    assert said == 'Error: ZeroDivisionError: division by zero.\nThe option --debug prints the traceback.\n'


@pytest.mark.parametrize(('stop', 'status'), [(KeyboardInterrupt('To go on: sleep.'), 130), (SystemExit(143), 143)])
def test_interrupt_that_a_library_masks(capsys, stop, status):
    """As mmengine does while it formats a config."""

    def main():
        try:
            raise stop
        except:  # noqa: E722
            raise SyntaxError('Failed to format the config file')  # noqa: B904

    ended, said = end_of(main, capsys)
    assert ended == status
    assert said == ('Interrupted. To go on: sleep.\n' if status == 130 else '')


def test_debug_prints_the_traceback(capsys):
    status, said = end_of(divide, capsys, '--debug')
    assert status == 1
    assert 'return 1 / 0' in said and said.startswith('Traceback')


def test_traceback_goes_to_the_log_file(tmp_path, capsys):
    log = tmp_path / 'run.log'
    MMLogger.get_instance(tmp_path.name, log_file=str(log))
    try:
        _, said = end_of(divide, capsys)
        assert f'The traceback is in {log}' in said
        assert 'return 1 / 0' in log.read_text()
    finally:
        del MMLogger._instance_dict[tmp_path.name]


def test_very_long_message_is_cut(capsys):
    def main():
        raise TypeError('x ' * 5000)

    _, said = end_of(main, capsys)
    assert len(said) < 800 and '…' in said


BROKEN_CONFIGS = {
    'syntax error': ('a = 1\nb = = 2\n', ['line 2', 'SyntaxError']),
    'raises': ('a = 1\nb = 2\nc = 1 / 0\n', ['line 3', 'ZeroDivisionError']),
    'undefined name': ('a = dict(b=c)\n', ['line 1', 'NameError', "'c'"]),
}


@pytest.mark.parametrize('kind', BROKEN_CONFIGS)
def test_config_that_cannot_be_read(kind, tmp_path, capsys):
    text, words = BROKEN_CONFIGS[kind]
    _, said = end_of(read(text, tmp_path), capsys)
    assert said.startswith(f'Error: {tmp_path}/config.py, ')
    assert all(word in said for word in words)


def test_error_in_a_base_config_names_that(tmp_path, capsys):
    (tmp_path / 'base.py').write_text('a = b\n')
    _, said = end_of(read('_base_ = "base.py"', tmp_path), capsys)
    assert said.startswith(f'Error: {tmp_path}/base.py, line 1,')


def test_unknown_option_names_part_class_and_closest_option(capsys):
    _, said = end_of(build(HOOKS, {'type': 'LoggerHook', 'intervall': 10}), capsys)
    assert said.startswith("Error: LoggerHook (parts.1) has no option 'intervall'; did you mean 'interval'?\n")


def test_error_in_a_constructor_names_the_part(capsys):
    _, said = end_of(build(HOOKS, {'type': 'LoggerHook', 'interval': 'often'}), capsys)
    assert said.startswith('Error: parts.1 cannot be built: TypeError: interval must be an integer.')


def test_unknown_type_is_named(capsys):
    _, said = end_of(build(OPTIMIZERS, {'type': 'SDG'}), capsys)
    assert said.startswith('Error: SDG') and 'is not in the' in said and said.count('\n') == 1


def test_error_in_a_worker_process(capsys):
    """torch wraps it: neither its traceback nor the type of the wrapper is shown."""
    from torch.utils.data import DataLoader

    class Broken(list):
        def __getitem__(self, index):
            raise TypeError('item is odd')

    def main():
        list(DataLoader(Broken([1, 2]), num_workers=1))

    _, said = end_of(main, capsys)
    assert said.startswith('Error: TypeError: item is odd.\n')


def test_exit_with_a_sentence(capsys):
    def main():
        raise SystemExit('Error: no.')

    assert end_of(main, capsys) == (1, 'Error: no.\n')


# --- Signals ----------------------------------------------------------------------------------------------------------

TOOL = """
import os, sys, time
from torch.utils.data import DataLoader
from ruas_mm.apis.run_tool import _say_unless_the_tool_has_gone, run_tool

class Slow(list):
    def __getitem__(self, index):
        time.sleep(0.05)
        return index

def main():
    open('temporary', 'w').close()
    try:
        for index in DataLoader(Slow(range(10**6)), num_workers=2):
            print('ready', flush=True)
    except KeyboardInterrupt:
        raise KeyboardInterrupt('To go on: sleep.') from None
    finally:
        os.remove('temporary')

run_tool(main)
"""


@pytest.mark.parametrize(
    ('number', 'status', 'said'),
    [(signal.SIGINT, 130, 'Interrupted. To go on: sleep.\n'), (signal.SIGTERM, 143, '')],
)
def test_signal(number, status, said, tmp_path):
    """As a terminal sends Ctrl-C: to the workers too. The tool cleans up, and only the tool speaks."""
    (tmp_path / 'tool.py').write_text(TOOL)
    process = subprocess.Popen(
        [sys.executable, 'tool.py'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        cwd=tmp_path,
        start_new_session=True,
    )
    assert process.stdout.readline() == 'ready\n'
    assert (tmp_path / 'temporary').exists()
    time.sleep(0.3)  # in the middle of an item of both workers
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == status
    assert errors == said
    assert not (tmp_path / 'temporary').exists()


def test_worker_is_silent_when_the_tool_has_gone(capfd):
    """The thread of a worker that hands over tensors finds its pipe broken; other errors are shown."""
    try:
        left, right = Pipe()
        right.close()
        left.send('tensor')
    except BrokenPipeError:
        _say_unless_the_tool_has_gone(*sys.exc_info())
    try:
        raise BrokenPipeError('elsewhere')
    except BrokenPipeError:
        _say_unless_the_tool_has_gone(*sys.exc_info())
    errors = capfd.readouterr().err
    assert errors.count('Traceback') == 1 and 'elsewhere' in errors


def test_handlers_are_put_back(capsys):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    end_of(divide, capsys)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# --- Several processes ------------------------------------------------------------------------------------------------

SEVERAL = """
import sys
import torch.distributed as dist
from ruas_mm.apis.run_tool import _say_unless_the_tool_has_gone, run_tool

def main():
    if sys.argv[1] == 'config':
        raise ValueError('wrong for all')
    dist.init_process_group('gloo')
    dist.barrier()
    if sys.argv[1] == 'interrupt':
        raise KeyboardInterrupt
    raise ValueError('one file is broken' if sys.argv[1] == 'shared' else f'file {dist.get_rank()} is broken')

run_tool(main)
"""


@pytest.mark.parametrize(
    ('kind', 'said'),
    [
        ('config', ['Error: ValueError: wrong for all.']),
        ('shared', ['Error: ValueError: one file is broken.']),
        ('own', ['Error: ValueError: file 0 is broken.', 'Error: ValueError: file 1 is broken.']),
        ('interrupt', ['Interrupted.']),
    ],
)
def test_several_processes(torchrun, tmp_path, kind, said):
    """What is the same for all is said once; what is wrong for one of them is not lost."""
    script = tmp_path / 'tool.py'
    script.write_text(SEVERAL)
    done = torchrun(script, kind, cwd=tmp_path)
    lines = re.findall(r'^(Error: .*?|Interrupted\.)(?: \(rank \d\))?$', done.stderr, re.MULTILINE)
    assert done.returncode != 0
    # torchrun ends the other process as soon as one has failed, perhaps before that one could speak
    assert lines and set(lines) <= set(said) and len(lines) <= len(said)
    if kind != 'interrupt' or 'Interrupted.' in lines:
        assert 'tool.py", line' not in done.stderr
