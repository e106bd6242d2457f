"""Compares `fmd.math` with two published PyTorch libraries on the same numbers, and records the largest differences.

PyPI `flow-matching` 1.0.10 and `torchcfm` 1.0.7 are no dependencies of fmd; install them beside it and run:

    python -m venv peers
    peers/bin/pip install -e . torch==2.13.0 POT==0.9.7.post1 torchdiffeq
    peers/bin/pip install --no-deps flow-matching==1.0.10 torchcfm==1.0.7
    peers/bin/python experiments/benchmarks/math_against_peers.py

Both libraries have t = 0 noise and t = 1 data, as here. `flow-matching` calls alpha/sigma the signal-to-noise ratio, so
its inverse is compared at log_snr = 2 log(alpha/sigma). Each difference is divided by the largest value compared.
The result is `results/math_against_peers.json`: dtype, what was compared, relative difference.
"""

import json
import pathlib
import warnings
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flow_matching.path import AffineProbPath
from flow_matching.path.scheduler import (
    CondOTScheduler,
    CosineScheduler,
    LinearVPScheduler,
    PolynomialConvexScheduler,
    ScheduleTransformedModel,
    VPScheduler,
)
from flow_matching.utils import ModelWrapper
from torchcfm import conditional_flow_matching as cfm
from torchcfm.optimal_transport import OTPlanSampler

from fmd.math import couplings, fields, paths, schedules

jax.config.update("jax_enable_x64", True)
SHAPE = (64, 3, 8, 8)
PAIRS = {
    "linear": (schedules.get("linear"), CondOTScheduler()),
    "cosine": (schedules.get("cosine"), CosineScheduler()),
    "polynomial": (schedules.get("polynomial", n=3), PolynomialConvexScheduler(n=3)),
    "linear_vp": (schedules.get("linear_vp"), LinearVPScheduler()),
    "vp": (schedules.get("vp"), VPScheduler()),
}


def numbers(dtype):
    """x0, x1 and times in [0.02, 0.98], the same for both sides."""
    source = np.random.default_rng(0)
    x0, x1 = source.normal(size=(2, *SHAPE)).astype(dtype)
    return x0, x1, source.uniform(0.02, 0.98, SHAPE[0]).astype(dtype)


def difference(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), theirs.detach().numpy().astype(np.float64)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def schedules_and_paths(dtype):
    """x_t, targets, coefficients, the inverse and the six conversions that `flow-matching` has."""
    x0, x1, t = numbers(dtype)
    tx0, tx1, tt = map(torch.from_numpy, (x0, x1, t))
    conversions = {
        ("data", "velocity"): "target_to_velocity",
        ("noise", "velocity"): "epsilon_to_velocity",
        ("velocity", "data"): "velocity_to_target",
        ("noise", "data"): "epsilon_to_target",
        ("velocity", "noise"): "velocity_to_epsilon",
        ("data", "noise"): "target_to_epsilon",
    }
    for name, (schedule, scheduler) in PAIRS.items():
        sample = AffineProbPath(scheduler).sample(x_0=tx0, x_1=tx1, t=tt)
        x_t = paths.interpolate(schedule, jnp.asarray(x0), jnp.asarray(x1), jnp.asarray(t))
        yield f"{name}: x_t", difference(x_t, sample.x_t)
        target = paths.velocity(schedule, jnp.asarray(x0), jnp.asarray(x1), jnp.asarray(t))
        yield f"{name}: velocity target", difference(target, sample.dx_t)
        theirs = scheduler(tt)
        for ours, their in (
            ("alpha", "alpha_t"),
            ("sigma", "sigma_t"),
            ("d_alpha", "d_alpha_t"),
            ("d_sigma", "d_sigma_t"),
        ):
            yield f"{name}: {ours}", difference(getattr(schedule, ours)(t), getattr(theirs, their))
        ratio = theirs.alpha_t / theirs.sigma_t
        inverse = schedule.inverse_log_snr(2.0 * jnp.log(jnp.asarray(ratio.numpy())))
        yield f"{name}: inverse of the signal-to-noise ratio", difference(inverse, scheduler.snr_inverse(ratio))
        each_t = tt.reshape(-1, 1, 1, 1)
        for (source, kind), method in conversions.items():
            ours = paths.convert(schedule, x_t, t, jnp.asarray(x1), source=source, target=kind)
            theirs_value = getattr(AffineProbPath(scheduler), method)(tx1, sample.x_t, each_t)
            yield f"{name}: {source} to {kind}", difference(ours, theirs_value)


class Toy(ModelWrapper):
    def __init__(self):
        super().__init__(torch.nn.Identity())

    def forward(self, x, t, **extras):
        return torch.tanh(x) + t


def changes_of_schedule(dtype):
    """The velocity of every other schedule, from a toy field along `linear`."""
    x0, _, t = numbers(dtype)
    old, old_scheduler = PAIRS["linear"]
    for name, (new, new_scheduler) in PAIRS.items():
        if name == "linear":
            continue
        moment = dtype(t[0])
        model = ScheduleTransformedModel(Toy(), old_scheduler, new_scheduler)
        theirs = model(x=torch.from_numpy(x0), t=torch.tensor(moment))
        field = fields.change_schedule(lambda t, x, args=None: jnp.tanh(x) + t.astype(x.dtype), old, new)
        yield f"linear to {name}: changed velocity", difference(field(moment, jnp.asarray(x0)), theirs)


def torchcfm_paths(dtype):
    """x_t and targets of the three matchers whose path is one of ours."""
    x0, x1, t = numbers(dtype)
    tx0, tx1, tt = map(torch.from_numpy, (x0, x1, t))
    matchers = {
        "linear": (cfm.ConditionalFlowMatcher(sigma=0.0), schedules.get("linear")),
        "linear, sigma_min 0.1": (cfm.TargetConditionalFlowMatcher(sigma=0.1), schedules.get("linear", sigma_min=0.1)),
        "cosine": (cfm.VariancePreservingConditionalFlowMatcher(sigma=0.0), schedules.get("cosine")),
    }
    for name, (matcher, schedule) in matchers.items():
        x_t = matcher.sample_xt(tx0, tx1, tt, tx0)
        target = matcher.compute_conditional_flow(tx0, tx1, tt, x_t)
        yield f"torchcfm {name}: x_t", difference(paths.interpolate(schedule, jnp.asarray(x0), jnp.asarray(x1), t), x_t)
        ours = paths.velocity(schedule, jnp.asarray(x0), jnp.asarray(x1), t)
        yield f"torchcfm {name}: velocity target", difference(ours, target)


def torchcfm_couplings(dtype):
    """The cost of the exact pairing, and the entropic plan at the same regularisation."""
    x0, x1, _ = numbers(dtype)
    tx0, tx1 = torch.from_numpy(x0), torch.from_numpy(x1)
    squared = ((x1.reshape(64, 1, -1) - x0.reshape(1, 64, -1)) ** 2).sum(-1)
    plan = OTPlanSampler("exact").get_map(tx0, tx1)
    moved, _, _ = couplings.get("optimal_transport")(jax.random.key(0), jnp.asarray(x0), jnp.asarray(x1))
    paired = np.asarray(((moved - x1) ** 2).sum())
    yield "torchcfm: cost of exact transport", difference(paired, torch.as_tensor((plan.T * squared).sum() * 64))
    epsilon = 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = OTPlanSampler("sinkhorn", reg=epsilon * float(squared.mean())).get_map(tx0, tx1)
    cost = couplings.transport_cost(jnp.asarray(x0), jnp.asarray(x1), None)
    ours = np.exp(couplings.log_plan(cost, epsilon, 2000))
    yield "torchcfm: entropic plan", difference(ours, torch.as_tensor(plan.T * 64))


def main():
    parts = (schedules_and_paths, changes_of_schedule, torchcfm_paths, torchcfm_couplings)
    found = {
        np.dtype(dtype).name: dict(item for part in parts for item in part(dtype)) for dtype in (np.float64, np.float32)
    }
    result = {
        "versions": {name: version(name) for name in ("jax", "torch", "flow-matching", "torchcfm", "POT")},
        "largest": {name: max(values.values()) for name, values in found.items()},
        **found,
    }
    place = pathlib.Path(__file__).parent / "results" / "math_against_peers.json"
    place.write_text(json.dumps(result, indent=1) + "\n")
    for name, values in found.items():
        worst = sorted(values.items(), key=lambda item: -item[1])[:5]
        print(name, "largest:", *(f"\n  {what}: {value:.2e}" for what, value in worst))


if __name__ == "__main__":
    main()
