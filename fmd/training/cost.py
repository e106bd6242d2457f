"""Operations of a run, counted once from the program of its step."""

import jax
from absl import logging

from fmd.models import flops
from fmd.models.flops import TRAINING, Cost
from fmd.training.run import Run


def cost_of(run: Run, step: jax.stages.Traced | None) -> Cost:
    """The operations of a run, which are logged, from its traced program of `steps_per_dispatch` steps.

    Without one, as `pmap` does not give it away, a step is three forward passes of the network on its batch.
    """
    config, device = run.config, jax.devices()[0].device_kind
    params = run.state.ema[run.info.averages[0]]
    forward = float(flops.forward(run.model, run.info.image_shape, run.info.conditions, params).total())
    batch = config.train.batch_size
    per_step = TRAINING * forward * batch
    if step is not None:
        per_step = flops.count(step.jaxpr).total() / config.train.steps_per_dispatch
    dtype = str(getattr(run.model, "dtype", "float32"))
    peak = flops.peak(device, dtype)
    cost = Cost(forward, per_step, None if peak is None else peak * run.layout.mesh.size)
    logging.info(
        "operations: %.4g for an image forward, %.4g for a step of %d images, %.3g for the run; %s",
        forward,
        per_step,
        batch,
        per_step * config.train.num_steps,
        f"{device}: the peak in {dtype} is not known" if peak is None else f"{device}: {peak:.3g} a second in {dtype}",
    )
    return cost
