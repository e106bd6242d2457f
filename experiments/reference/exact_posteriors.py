"""Posterior samplers judged by exact posteriors on real digits.

The prior is a mixture of N(x_k, tau^2 I) over K real digits of scikit-learn, 8x8 pixels in [-1, 1], whose velocity
field has a closed form: no network, no training, no error but the sampler's. Given y = A x + s n the posterior is again
such a mixture, its weights known. The table compares each method of `fmd.math.restoration` with it:

    variation   total variation between the weights and the shares of the draws that belong to each digit, in the mean
                over measurements; that of as many exact draws is chance, and the least that a method can score
    answers     exp(entropy) of the shares: how many digits a sampler answers with
    coverage    pixels of the truth within 3 standard deviations of the mean of 20 draws
    PSNR        of the mean of the draws, and of one draw, dB for values 2 apart
    misfit      |A x - y| / (s sqrt(m)), root mean square: 1 explains the measurement as well as the truth does
    seconds     for all draws of an operator, the compilation left out

python experiments/reference/exact_posteriors.py
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from fmd.files import write_json
from fmd.math import operators
from fmd.math.operators import Operator
from fmd.math.restoration import restore

HERE = Path(__file__).parent
SHAPE = (8, 8, 1)
OPERATORS: dict[str, tuple[Operator, float]] = {  # name: (A, s)
    "lower half hidden": (operators.get("mask", hidden="lower_half"), 0.3),
    "means of 4x4 pixels": (operators.get("block_average", factor=4), 0.1),
    "blur of 2 pixels": (operators.get("blur", std=2.0), 0.1),
    "each second pixel": (operators.get("subsample", factor=2), 0.3),
    "noise alone": (operators.get("identity"), 1.0),
}
METHODS: dict[str, dict[str, object]] = {
    "tweedie": {},
    "pigdm": {},
    "flower": {},
    "flower, gamma 0": {"method": "flower", "gamma": 0.0},
    "projection": {},
    "d_flow": {"steps": 5},
}
FEW = 10  # draws of d_flow, whose gradients cost the most; its chance level is that of as many


class Posterior(NamedTuple):
    """The exact posterior of one measurement: weights [K], means [K, d], and one covariance [d, d]."""

    weights: np.ndarray
    means: np.ndarray
    covariance: np.ndarray


def digits_field(digits, tau):
    """The velocity of the mixture of N(digit, tau^2 I) on the linear path, x [B, 8, 8, 1]."""
    points = jnp.asarray(digits.reshape(len(digits), -1), jnp.float32)
    lengths = jnp.sum(points**2, axis=1)

    def field(t, x, args=None):
        flat, variance = x.reshape(x.shape[0], -1), t**2 * tau**2 + (1 - t) ** 2
        # -|x - t x_k|^2/2 without what all k share.
        share = jax.nn.softmax((t * flat @ points.T - t**2 * lengths / 2) / variance, axis=1)
        slope = (t * tau**2 - (1 - t)) / variance  # of component k: x_k + slope (x - t x_k)
        mean = share @ points
        return (mean + slope * (flat - t * mean)).reshape(x.shape)

    return field


def matrix_of(operator):
    """[m, d] of an operator."""
    inputs = jnp.eye(64).reshape(64, *SHAPE)
    return np.asarray(operator(inputs), np.float64).reshape(64, -1).T


def exact_posterior(digits, tau, a, y, noise):
    """The posterior of one measurement y [m]."""
    points = digits.reshape(len(digits), -1).astype(np.float64)
    spread = tau**2 * a @ a.T + noise**2 * np.eye(len(a))
    miss = y - points @ a.T
    log_weights = -0.5 * np.einsum("km,mn,kn->k", miss, np.linalg.inv(spread), miss)
    weights = np.exp(log_weights - log_weights.max())
    gain = tau**2 * a.T @ np.linalg.inv(spread)
    return Posterior(weights / weights.sum(), points + miss @ gain.T, tau**2 * (np.eye(64) - gain @ a))


def exact_draws(random, posterior, count):
    """[count, d] draws of it."""
    values, vectors = np.linalg.eigh(posterior.covariance)
    noise = random.normal(size=(count, 64)) @ (vectors * np.sqrt(np.maximum(values, 0))).T
    return posterior.means[random.choice(len(posterior.weights), count, p=posterior.weights)] + noise


def judge(draws, posteriors, truths, measured, a, noise):
    """Figures of draws [M, N, d] for M measurements."""
    variation, answers, coverage, of_mean, of_one, misfit = [], [], [], [], [], []
    for drawn, posterior, truth, y in zip(draws, posteriors, truths, measured, strict=True):
        # The component of a draw by the likelihood of each, their covariances being equal: nearest mean in that metric.
        precision = np.linalg.inv(posterior.covariance + 1e-9 * np.eye(64))
        gap = np.einsum("kd,de,ke->k", posterior.means, precision, posterior.means) / 2
        scores = drawn @ precision @ posterior.means.T - gap + np.log(np.maximum(posterior.weights, 1e-300))
        shares = np.bincount(scores.argmax(1), minlength=len(posterior.weights)) / len(drawn)
        variation.append(0.5 * np.abs(shares - posterior.weights).sum())
        answers.append(np.exp(-np.sum(shares[shares > 0] * np.log(shares[shares > 0]))))
        few = drawn[:20]
        coverage.append(np.mean(np.abs(truth - few.mean(0)) <= 3 * few.std(0, ddof=1)))
        of_mean.append(np.mean((drawn.mean(0) - truth) ** 2))
        of_one.append(np.mean((drawn - truth) ** 2))
        misfit.append(np.mean((drawn @ a.T - y) ** 2))
    return {
        "variation": float(np.mean(variation)),
        "answers": float(np.mean(answers)),
        "coverage": float(np.mean(coverage)),
        "psnr_of_mean": float(10 * np.log10(4 / np.mean(of_mean))),
        "psnr_of_draw": float(10 * np.log10(4 / np.mean(of_one))),
        "misfit": float(np.sqrt(np.mean(misfit)) / noise),
    }


def experiment(args):
    images = load_digits().images / 8.0 - 1.0
    random = np.random.default_rng(args.seed)
    digits = images[random.permutation(len(images))[: args.digits]].reshape(-1, *SHAPE)
    field, rows = digits_field(digits, args.tau), []
    for name, (operator, noise) in OPERATORS.items():
        a = matrix_of(operator)
        chosen = digits[random.choice(len(digits), args.measurements, replace=False)].reshape(-1, 64)
        truths = chosen + args.tau * random.normal(size=chosen.shape)
        measured = truths @ a.T + noise * random.normal(size=(len(truths), len(a)))
        posteriors = [exact_posterior(digits, args.tau, a, y, noise) for y in measured]
        weights = np.stack([p.weights for p in posteriors])
        exact = np.stack([exact_draws(random, p, args.draws) for p in posteriors])
        common = posteriors, truths, measured, a, noise
        for count in (args.draws, min(FEW, args.draws)):
            drawn = judge(exact[:, :count], *common)
            rows.append({"operator": name, "noise": noise, "method": f"exact, {count} draws", **drawn, "seconds": None})
            rows[-1]["answers_exact"] = float(np.mean(np.exp(-np.sum(weights * np.log(weights + 1e-300), axis=1))))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
        shaped = measured.reshape(len(measured), *operator.measured(SHAPE)).astype(np.float32)
        for method, options in METHODS.items():
            each = min(FEW, args.draws) if method == "d_flow" else args.draws
            given = jnp.repeat(jnp.asarray(shaped), each, axis=0)
            options = {"method": method, "steps": args.steps, "noise_std": noise} | options
            program = jax.jit(partial(restore, field, operator=operator, shape=(len(given), *SHAPE), **options))
            run = program.lower(given, key=jax.random.key(args.seed)).compile()
            start = time.perf_counter()
            drawn = np.asarray(run(given, key=jax.random.key(args.seed)), np.float64)
            seconds = time.perf_counter() - start
            figures = judge(drawn.reshape(len(truths), each, 64), *common)
            rows.append({"operator": name, "noise": noise, "method": method, **figures, "seconds": seconds})
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    return rows


def table(rows):
    """The rows as markdown."""
    lines = ["| operator | method | variation | answers | coverage | PSNR mean | PSNR draw | misfit | seconds |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        lines.append(
            f"| {row['operator']}, s = {row['noise']} | {row['method']} | {row['variation']:.3f} "
            f"| {row['answers']:.1f} | {100 * row['coverage']:.1f} % | {row['psnr_of_mean']:.1f} "
            f"| {row['psnr_of_draw']:.1f} | {row['misfit']:.2f} | {seconds} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, default=200, help="K, components of the prior")
    parser.add_argument("--tau", type=float, default=0.1)
    parser.add_argument("--measurements", type=int, default=10, help="for each operator")
    parser.add_argument("--draws", type=int, default=60, help="for each measurement")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "exact_posteriors.json")
    args = parser.parse_args()
    rows = experiment(args)
    asked = {key: value for key, value in vars(args).items() if key != "out"}
    write_json(args.out, {"settings": asked | {"jax": jax.__version__}, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
