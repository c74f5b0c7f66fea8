"""The runner of the tools: its terminal, checkpoints that fit, EMA, and validations that a kill has cut off."""

import logging
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ruas_mm.apis.tool_runner import ToolRunner
from ruas_mm.engine.pending_validation_hook import PendingValidationHook
from ruas_mm.search import SCENE_SPACE, Genotype
from ruas_mm.search.slots import SearchSlots


class Tiny(BaseModel):
    """One weight, which training changes, and slots whose operations have no weights here."""

    def __init__(self, genotype=None, size=1):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.slots = None if genotype is None else SearchSlots('scene', ['first'], SCENE_SPACE, genotype)

    def forward(self, x, mode='tensor'):
        if mode == 'loss':
            return {'loss': (self.weight * x).square().mean()}
        return [{'weight': float(self.weight.detach()[0])}]


class Weight(BaseMetric):
    """The weight of the model that was evaluated."""

    default_prefix = 'tiny'

    def process(self, data_batch, data_samples):
        self.results.extend(sample['weight'] for sample in data_samples)

    def compute_metrics(self, results):
        return {'weight': results[0]}


class Seen(Hook):
    """Which validations there were, by epoch or iteration; and a kill before one of them."""

    priority = 'LOWEST'

    def __init__(self, kill_at=None):
        self.epochs, self.figures, self.kill_at = [], [], kill_at

    def before_val(self, runner):
        if runner.iter == self.kill_at:
            raise KeyboardInterrupt

    def after_val_epoch(self, runner, metrics=None):
        self.epochs.append(runner.iter)
        self.figures.append(metrics['tiny/weight'])


def loader():
    data = TensorDataset(torch.arange(1.0, 5.0).view(4, 1))
    return DataLoader(data, batch_size=2, sampler=DefaultSampler(data, shuffle=False))


_count = iter(range(1000))


def runner(work, hooks=(), load_from=None, resume=False, train_cfg=None, test=False, by_epoch=True, **model):
    train_cfg = train_cfg or {'by_epoch': by_epoch, 'max_epochs': 4, 'val_interval': 2}
    training = {
        'train_dataloader': loader(),
        'train_cfg': train_cfg,
        'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.05}},
    }
    config = Config({'model': {'type': 'Tiny', **model}})
    checkpoint = {'type': 'CheckpointHook', 'by_epoch': by_epoch, 'interval': 1, 'save_optimizer': False}
    made = ToolRunner(
        Tiny(**model),
        str(work),
        **({} if test else training),
        val_dataloader=None if test else loader(),
        val_cfg=None if test else {},
        val_evaluator=None if test else [Weight()],
        test_dataloader=loader(),
        test_cfg={},
        test_evaluator=[Weight()],
        default_hooks={'checkpoint': checkpoint, 'logger': {'type': 'LoggerHook', 'interval': 1}},
        custom_hooks=list(hooks),
        load_from=None if load_from is None else str(load_from),
        resume=resume,
        experiment_name=f'{work.name}_{next(_count)}',
        cfg=config,
    )
    if not test:
        made.register_hook(PendingValidationHook())
    return made


# --- Validation -------------------------------------------------------------------------------------------------------


def killed(work, kill_at, **options):
    seen = Seen(kill_at)
    with pytest.raises(KeyboardInterrupt):
        runner(work, [seen], **options).train()
    return seen


def resumed(work, name, capsys, **options):
    seen = Seen()
    capsys.readouterr()
    runner(work, [seen], work / f'{name}.pth', True, **options).train()
    return seen, capsys.readouterr().out


def test_kill_before_the_final_validation(tmp_path, capsys):
    whole = Seen()
    runner(tmp_path / 'whole', [whole]).train()
    assert whole.epochs == [4, 8]

    work = tmp_path / 'work'
    assert killed(work, 8).epochs == [4]
    seen, printed = resumed(work, 'epoch_4', capsys)
    assert seen.epochs == [8] and seen.figures == whole.figures[1:]
    assert 'Training had already finished: epoch 4 of 4' in printed

    seen, printed = resumed(work, 'epoch_4', capsys)  # once more: it is done by now
    assert seen.epochs == []
    assert 'Training had already finished' in printed


def test_kill_before_a_validation_in_between(tmp_path, capsys):
    work = tmp_path / 'work'
    killed(work, 4)
    seen, printed = resumed(work, 'epoch_2', capsys)
    assert seen.epochs == [4, 8]
    assert 'already finished' not in printed


def test_epochs_that_are_not_validated(tmp_path, capsys):
    runner(tmp_path / 'work').train()
    seen, _ = resumed(tmp_path / 'work', 'epoch_3', capsys)
    assert seen.epochs == [8]


def test_validation_of_an_earlier_run_does_not_count(tmp_path, capsys):
    """Two runs in one folder: the record is of the first."""
    work = tmp_path / 'work'
    runner(work).train()
    killed(work, 8)
    assert resumed(work, 'epoch_4', capsys)[0].epochs == [8]


def test_iterations(tmp_path, capsys):
    options = {'by_epoch': False, 'train_cfg': {'by_epoch': False, 'max_iters': 6, 'val_interval': 3}}
    work = tmp_path / 'work'
    killed(work, 3, **options)
    seen, _ = resumed(work, 'iter_3', capsys, **options)
    assert seen.epochs == [3, 6]
    (work / 'last_validation.json').write_text('cut')
    seen, printed = resumed(work, 'iter_6', capsys, **options)
    assert seen.epochs == [6]
    assert 'Training had already finished: iteration 6 of 6' in printed


# --- Checkpoints ------------------------------------------------------------------------------------------------------


def weight_in_test(work, checkpoint, hooks=(), **model):
    return runner(work, hooks, checkpoint, test=True, **model).test()['tiny/weight']


def test_weights_of_the_moving_average_are_tested(tmp_path):
    average = {'type': 'EMAHook', 'momentum': 0.1}
    seen = Seen()
    runner(tmp_path / 'work', [average, seen]).train()
    path = tmp_path / 'work' / 'epoch_4.pth'
    kept = torch.load(path, weights_only=False)
    averaged, trained = kept['state_dict']['weight'].item(), kept['ema_state_dict']['module.weight'].item()
    assert abs(averaged - trained) > 0.01
    assert weight_in_test(tmp_path / 'test', path, [average]) == pytest.approx(averaged)
    assert weight_in_test(tmp_path / 'test', path) == pytest.approx(averaged)
    assert seen.figures[-1] == pytest.approx(averaged)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The work directory of a model with the operation conv_1x1, and its last checkpoint."""
    work = tmp_path_factory.mktemp('trained')
    runner(work, genotype={'scene.first': 'conv_1x1'}).train()
    return work / 'epoch_4.pth'


def test_checkpoint_of_another_size_is_not_tested(trained, tmp_path):
    with pytest.raises(ValueError, match='epoch_4.pth cannot be tested: it is of another model than the config: size'):
        weight_in_test(tmp_path, trained, size=2)


def test_training_does_not_go_on_from_another_model(trained, tmp_path):
    with pytest.raises(ValueError, match='Training cannot go on from .*epoch_4.pth: it is of another model'):
        runner(tmp_path, (), trained, True, size=2).train()


def test_another_genotype_of_the_same_shapes(trained, tmp_path):
    """It would train and test without a word."""
    assert weight_in_test(tmp_path, trained, genotype={'scene.first': 'conv_1x1'}) < 1
    for call in (
        lambda: weight_in_test(tmp_path, trained, genotype={'scene.first': 'skip'}),
        lambda: runner(tmp_path, (), trained, True, genotype={'scene.first': 'skip'}).train(),
    ):
        with pytest.raises(ValueError, match="another genotype.*'scene.first' is 'conv_1x1', not 'skip'"):
            call()


def test_genotype_by_file(trained, tmp_path):
    Genotype({'scene.first': 'conv_1x1'}).save(tmp_path / 'same.json')
    assert weight_in_test(tmp_path, trained, genotype=str(tmp_path / 'same.json')) < 1


def test_training_starts_from_part_of_another_model(trained, tmp_path):
    """``load_from`` without resuming stays mmengine's: a new head on an old backbone."""
    runner(tmp_path, (), trained, size=2).train()


# --- What the terminal shows ------------------------------------------------------------------------------------------


def test_terminal_and_log_file(tmp_path, capsys):
    made = runner(tmp_path)
    made.train()
    printed = capsys.readouterr().out
    log = Path(made.logger.log_file)
    kept = log.read_text()
    assert str(log) in printed
    for shown in ('Epoch(train) [1][1/2]', 'Epoch(val)', 'tiny/weight', 'Saving checkpoint at 4 epochs'):
        assert shown in printed and shown in kept
    for hidden in ('System environment', 'Config:', 'Hooks will be executed', 'Exp name'):
        assert hidden not in printed and hidden in kept
    assert len(printed.splitlines()) < len(kept.splitlines()) / 3


def test_warnings_and_messages_of_other_code_are_shown(tmp_path, capsys):
    made = runner(tmp_path)
    capsys.readouterr()
    made.logger.info('from a hook of the user')
    made.logger.warning('beware')
    printed = capsys.readouterr().out
    assert 'from a hook of the user' in printed and 'beware' in printed


class FullDisk(Hook):
    def before_train(self, runner):
        (handler,) = [handler for handler in runner.logger.handlers if isinstance(handler, logging.FileHandler)]
        handler.stream.close()
        handler.stream = open('/dev/full', 'w')  # noqa: SIM115


def test_log_that_cannot_be_written(tmp_path, capsys):
    """One sentence, and training goes on; logging's own way is a traceback for every line."""
    runner(tmp_path, [FullDisk()]).train()
    said = capsys.readouterr().err
    assert re.fullmatch(r'Warning: the log .*\.log cannot be written: .*No space left on device\n', said)
    assert (tmp_path / 'epoch_4.pth').is_file()
