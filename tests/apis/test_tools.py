"""Configs of the command line tools."""

import argparse
import copy

from mmengine.config import Config

from ruas_mm.apis import tools


def load(path, tmp_path):
    args = argparse.Namespace(
        config=str(path), cfg_options={}, launcher='none', local_rank=0, work_dir=str(tmp_path / 'work'), genotype=None
    )
    return tools.load_config(args)


def test_config_is_formatted_once(tmp_path, monkeypatch):
    """The text is that of mmengine; formatting it takes seconds."""
    path = tmp_path / 'config.py'
    path.write_text("model = dict(type='ruas_mm.RUAS', variant='S')\nnumbers = [1, 2, 3]\n")
    config = load(path, tmp_path)
    calls = []
    original = Config.pretty_text.fget
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: calls.append(1) or original(self)))
    expected = original(config)
    assert config.pretty_text == copy.deepcopy(config).pretty_text == expected
    assert len(calls) == 1
    config.numbers = [4]
    assert '[' in config.pretty_text and config.pretty_text == original(config) != expected
    assert len(calls) == 2
    config.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').numbers == [4]
