"""A callback of one's own: a line of its log for every checkpoint, and an early end."""

from fmd.training.callbacks import Callback
from fmd.training.lines import LineLog


class StopEarly(Callback):
    def on_train_start(self, run):
        self._log = run.logs["mine"] = LineLog(run.workdir / "mine", after=run.step)

    def on_step_end(self, run):
        if run.due(run.config.checkpoint.every):
            self._log.append({"step": run.step, "first_bad": int(run.report.first_bad)})
        if run.step >= 3:
            run.stop()
