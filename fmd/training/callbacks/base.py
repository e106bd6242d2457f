"""The hooks of the training loop, and callbacks by name."""

import importlib
from collections.abc import Iterable

from fmd.training.run import Run


class Callback:
    """The hooks. Subclass it, override what you need, name it in `config.log.callbacks` as "package.module:Class".

    `on_train_start` comes before the first step (also where a run goes on), `on_step_end` after every dispatch
    (config.train.steps_per_dispatch steps), `on_train_end` after the last one or a stop, not after an error. All
    processes of a run call every hook, and must take part in computations over all devices; files are for the main
    process (`fmd.processes.is_main_process()`). An error in a hook ends the run and is reported with the name of the
    callback; the checkpoints before it stay good. `fmd.training.run.Run` says what a callback may use.
    """

    def on_train_start(self, run: Run) -> None: ...

    def on_step_end(self, run: Run) -> None: ...

    def on_train_end(self, run: Run) -> None: ...


HOOKS = ("on_train_start", "on_step_end", "on_train_end")


def load(names: Iterable[str]) -> list[Callback]:
    """Callbacks from "package.module:Class" names.

    Raises ValueError for a name of another form, or one that cannot be imported or is no callback.
    """
    found: list[Callback] = []
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            make = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"config.log.callbacks: {name!r} is not package.module:Class ({error})") from None
        if lacking := [hook for hook in HOOKS if not callable(getattr(make, hook, None))]:
            raise ValueError(
                f"config.log.callbacks: {name!r} has no {lacking[0]}; make it a subclass of "
                f"fmd.training.callbacks.Callback"
            )
        found.append(make())
    return found
