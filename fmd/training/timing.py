"""Speed and memory of a run: the only log that two equal runs do not share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from fmd.training.lines import JsonLines, Line
from fmd.training.run import Run


class Timing:
    """timing.jsonl: what the clock says about the steps of a line of the log, and the memory of the devices.

    seconds: of these steps, without what was done beside them; seconds_per_step, images_per_second: follow from it.
    compilation_seconds, evaluation_seconds, ...: spent beside the steps since the line before.
    flops: operations of all steps since the line before, on all `devices`; utilisation: the share of their peak that
    these steps take, None where it is unknown.
    memory_bytes, peak_memory_bytes: of the fullest device of this process, None where the backend does not tell.
    """

    def __init__(self, run: Run) -> None:
        self._log = run.logs["timing"] = JsonLines(run.workdir / "timing.jsonl", after=run.step)
        self._clock = time.perf_counter()
        self._step: int | None = None
        self._beside: dict[str, float] = {}
        self._counted = run.step

    def first_step(self, run: Run) -> None:
        """Starts the clock when the first dispatch is done: until then it is mostly compilation."""
        if self._step is None:
            jax.block_until_ready(run.report)
            now = time.perf_counter()
            run.seconds["compilation"] = now - self._clock
            self._clock, self._step = now, run.step

    def line(self, run: Run, step: int, *, last: bool = False) -> None:
        """Adds the line of `step`, whose figures have just arrived; the last one closes the account of the run."""
        if self._step is None:  # the run was finished before it began
            return
        now, beside = time.perf_counter(), dict(run.seconds)
        spent = {what: total - self._beside.get(what, 0.0) for what, total in beside.items()}
        # Compilation came before the clock was set.
        seconds = now - self._clock - sum(value for what, value in spent.items() if what != "compilation")
        steps = step - self._step
        known = steps > 0 and seconds > 0 and not last
        line: Line = {"step": step, "seconds": round(max(seconds, 0.0), 6)}
        line["seconds_per_step"] = float(f"{seconds / steps:.4g}") if known else None
        line["images_per_second"] = float(f"{run.config.train.batch_size * steps / seconds:.5g}") if known else None
        line |= {f"{what}_seconds": round(value, 6) for what, value in spent.items()}
        line |= operations(run, step - self._counted, line["images_per_second"])
        line |= device_memory()
        self._log.append(line)
        self._clock, self._step, self._beside, self._counted = now, step, beside, step


def operations(run: Run, steps: int, images_per_second: float | None) -> Line:
    """Operations of `steps` steps, and the share of the devices' peak that their speed is."""
    cost = run.cost
    share = None if cost is None or images_per_second is None else cost.utilisation(images_per_second)
    line: Line = {"flops": None if cost is None else float(f"{cost.step * steps:.6g}"), "devices": run.layout.mesh.size}
    return line | {"utilisation": None if share is None else float(f"{share:.4g}")}


def device_memory() -> Line:
    """Bytes in use now and at most, on the fullest device of this process; None where the backend does not tell."""
    told = [device.memory_stats() or {} for device in jax.local_devices()]
    line: Line = {}
    for name, key in (("memory_bytes", "bytes_in_use"), ("peak_memory_bytes", "peak_bytes_in_use")):
        line[name] = max((stats[key] for stats in told if key in stats), default=None)
    return line


@contextmanager
def beside_the_steps(run: Run, what: str) -> Iterator[None]:
    """Adds the time of a `with` block to `run.seconds[what]`, and not to that of the steps still under way."""
    jax.block_until_ready(run.report)
    started = time.perf_counter()
    yield
    run.seconds[what] = run.seconds.get(what, 0.0) + time.perf_counter() - started
