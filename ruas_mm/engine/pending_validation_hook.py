"""The validation that a run was killed before: made up for when the run is resumed."""

from __future__ import annotations

import json
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ruas_mm.utils.fileio import atomic_write

_RECORD = 'last_validation.json'  # beside mmengine's last_checkpoint


class PendingValidationHook(Hook):
    """Runs the validation of the checkpoint that training resumes from, if a kill came between the two.

    mmengine saves a checkpoint before it validates, and a resumed loop begins with the next epoch or iteration: the
    figures of that checkpoint, and the best checkpoint if it is the one, would be lost. After each validation the hook
    writes its iteration to ``last_validation.json`` in the work directory. If training had already finished it says so.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Validate, if that is pending; the other hooks are ready by then."""
        loop = runner.train_loop
        validated = self._record(runner)
        if validated != runner.iter and is_main_process():  # of an earlier run in the same folder
            self._path(runner).unlink(missing_ok=True)
        if not runner.iter:
            return
        if isinstance(loop, EpochBasedTrainLoop):
            done, end, unit = runner.epoch, loop.max_epochs, 'epoch'
        else:
            done, end, unit = runner.iter, loop.max_iters, 'iteration'
        if done >= end:
            runner.logger.warning(f'Training had already finished: {unit} {done} of {end} is done.')
        if runner.val_loop is None or validated == runner.iter:
            return
        loop._decide_current_val_interval()
        if done >= loop.val_begin and (done % loop.val_interval == 0 or done >= end):
            runner.logger.info(f'The run was killed before the validation of {unit} {done}, which follows now.')
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Record what has been validated."""
        if is_main_process():
            atomic_write(self._path(runner), json.dumps({'iter': runner.iter}))

    def _record(self, runner: Runner) -> int | None:
        """Return the iteration of the last validation, as rank 0 sees it."""
        record = [None]
        if is_main_process():
            try:
                record = [json.loads(self._path(runner).read_text())['iter']]
            except (OSError, ValueError, LookupError, TypeError):  # none yet, or cut by the kill
                record = [None]
        broadcast_object_list(record)
        return record[0]

    @staticmethod
    def _path(runner: Runner) -> Path:
        return Path(runner.work_dir, _RECORD)
