"""Optax optimisers by name: clip, precondition, decay the kernels, follow a learning-rate schedule."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from optax import contrib

from fmd.models.transformer_layers import kernel_parts
from fmd.types import Params

Path = tuple[Any, ...]  # of a leaf, as JAX gives it

MUON_MOMENTUM = 0.95
MUON_SIZE = 0.2  # root mean square of Muon's updates as that of Adam's, so that both take the same learning rate
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # X <- a X + b (X X^T) X + c (X X^T)^2 X, NEWTON_SCHULZ_STEPS times
NEWTON_SCHULZ_STEPS = 5


def muon(b1: float, b2: float) -> optax.GradientTransformation:
    """Muon for kernels, as matrices [all axes but the last, last]; NAdam for biases, norms and embeddings.

    A kernel of stacked blocks [depth, in, out] is `depth` matrices, or where a layer computes several products in one,
    as query, key and value, so many times more. Each update of a matrix is about the nearest orthogonal one to its
    momentum, scaled as in arXiv 2502.16982. Both have Nesterov's form; the momentum is Muon's own, b1 and b2 are
    Adam's. On a CPU the nearest matrix is found by `orthogonal`, with fewer operations than optax's.
    """
    by_gram = jax.default_backend() == "cpu"

    def taken_apart(path: Path, leaf: Array) -> Array:
        """A kernel with an axis for the matrices that stand side by side in it: [depth, in, parts, out]."""
        _, parts = kernel_parts(names(path)) if is_kernel(path) else (False, 1)
        return leaf if parts == 1 else leaf.reshape(*leaf.shape[:-1], parts, -1)

    def matrix(path: Path, leaf: Array) -> contrib.MuonDimensionNumbers | None:
        if not is_kernel(path) or leaf.ndim < 2:
            return None
        stacked, parts = kernel_parts(names(path))
        *rows, columns = range(leaf.ndim)
        return contrib.MuonDimensionNumbers(tuple(rows[stacked : len(rows) - (parts > 1)]), (columns,))

    direction = contrib.muon(
        1.0,
        ns_coeffs=NEWTON_SCHULZ,
        ns_steps=0 if by_gram else NEWTON_SCHULZ_STEPS,
        beta=MUON_MOMENTUM,
        adam_b1=b1,
        adam_b2=b2,
        muon_weight_dimension_numbers=lambda params: jax.tree_util.tree_map_with_path(matrix, params),
        consistent_rms=MUON_SIZE,
    )
    apart = partial(jax.tree_util.tree_map_with_path, taken_apart)

    def finish(path: Path, moved: Array) -> Array:
        """The update of a kernel from its momentum."""
        axes = matrix(path, moved) if by_gram else None
        if axes is None:
            return moved
        rows = axes.reduction_axis
        before = tuple(range(-1 - len(rows), -1))
        last = jnp.moveaxis(moved, rows, before)  # [*others, *rows, column]
        matrices = last.reshape(math.prod(last.shape[: before[0]]), -1, last.shape[-1])
        new = MUON_SIZE * max(matrices.shape[1:]) ** 0.5 * _orthogonal(matrices)
        return jnp.moveaxis(new.reshape(last.shape), before, rows)

    def update(updates: Params, state: optax.OptState, params: Params) -> tuple[Params, optax.OptState]:
        moved, state = direction.update(apart(updates), state, apart(params))
        moved = jax.tree_util.tree_map_with_path(finish, moved)
        return jax.tree.map(lambda new, old: new.reshape(old.shape), moved, updates), state

    whole = optax.GradientTransformation(lambda params: direction.init(apart(params)), update)
    return optax.chain(whole, optax.scale(-1.0))  # it is written with the learning rate's sign


def orthogonal(x: Float[Array, "M N"]) -> Float[Array, "M N"]:
    """About the nearest orthogonal matrix, by Muon's iteration, for a tall one on its Gram matrix.

    With A = X^T X every X_k is X Q_k, Q_k and A_k polynomials of A, so only the first and the last product are with X.
    The kernel of a 3x3 convolution is 9 to 18 times as tall as wide. Equal to `optax.contrib.muon`'s up to rounding in
    full float32; lower precisions make small eigenvalues of A negative, which then grow.
    """
    if x.shape[0] < x.shape[1]:
        return orthogonal(x.T).T
    x = x / (jnp.linalg.norm(x) + 1e-8)
    a, b, c = NEWTON_SCHULZ
    if x.shape[0] < 1.5 * x.shape[1]:  # then products with X cost less than those of the polynomials
        for _ in range(NEWTON_SCHULZ_STEPS):
            gram = x.T @ x
            x = a * x + x @ (b * gram + c * (gram @ gram))
        return x
    gram, one = x.T @ x, jnp.eye(x.shape[1], dtype=x.dtype)
    product = one
    for step in range(NEWTON_SCHULZ_STEPS):
        factor = a * one + b * gram + c * (gram @ gram)
        product = product @ factor if step else factor
        if step + 1 < NEWTON_SCHULZ_STEPS:
            gram = factor @ gram @ factor
    return x @ product


_orthogonal = jax.jit(jax.vmap(orthogonal))  # traced once per shape

# How each turns gradients into a direction; the learning rate and weight decay are added below, alike for all.
DIRECTIONS: dict[str, Callable[[float, float], optax.GradientTransformation]] = {
    "adam": lambda b1, b2: optax.scale_by_adam(b1, b2),
    "adamw": lambda b1, b2: optax.scale_by_adam(b1, b2),  # adam with weight_decay > 0, by its usual name
    "muon": muon,
    "lion": lambda b1, b2: optax.scale_by_lion(b1, b2),
    "sgd": lambda b1, b2: optax.trace(b1),
}


def get(
    name: str,
    *,
    schedule: optax.Schedule,
    clip_norm: float | None = None,
    weight_decay: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
) -> optax.GradientTransformation:
    """An optimiser by name.

    Weight decay is decoupled (arXiv 1711.05101) and applies to kernels only: not to biases, norms and embeddings.

    Raises:
        ValueError: for an unknown name, listing the known ones.
    """
    if name not in DIRECTIONS:
        raise ValueError(f"config.optimizer.name = {name!r}; choose one of {', '.join(DIRECTIONS)}")
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        DIRECTIONS[name](b1, b2),
        optax.add_decayed_weights(weight_decay, kernels) if weight_decay else optax.identity(),
        optax.scale_by_learning_rate(schedule),
    )


def with_critic(optimizer: optax.GradientTransformation, rate: float) -> optax.GradientTransformation:
    """The optimiser of {"network": ..., "critic": ...}, in which the critic takes steps `rate` times as long."""

    def scale(updates: Params, params: Params | None) -> Params:
        return {**updates, "critic": jax.tree.map(lambda update: rate * update, updates["critic"])}

    return optax.chain(optimizer, optax.stateless(scale))


def learning_rate(
    peak: float, num_steps: int, *, warmup_steps: int = 0, decay: str = "cosine", final_fraction: float = 0.0
) -> optax.Schedule:
    """Linear warm-up to `peak`, then "cosine", "linear" or "constant" to `final_fraction * peak` at `num_steps`.

    Raises:
        ValueError: when the warm-up is longer than the run.
    """
    if warmup_steps >= num_steps:
        raise ValueError(
            f"config.optimizer.warmup_steps = {warmup_steps}; it must be below config.train.num_steps = {num_steps}"
        )
    rest = num_steps - warmup_steps
    after = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, final_fraction),
        "linear": lambda: optax.linear_schedule(peak, final_fraction * peak, rest),
        "constant": lambda: optax.constant_schedule(peak),
    }[decay]()
    if not warmup_steps:
        return after
    # Counting from 1 so that the first step already moves the parameters.
    warmup = lambda step: peak * (step + 1) / warmup_steps  # noqa: E731
    return optax.join_schedules([warmup, after], [warmup_steps])


def kernels(params: Params) -> Params:
    """True for the leaves that weight decay applies to: those named `kernel`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: is_kernel(path), params)


def is_kernel(path: Path) -> bool:
    """True where the last name of a path is `kernel`."""
    return names(path)[-1] == "kernel"


def names(path: Path) -> list[str]:
    """The names along a path of a tree."""
    return [str(getattr(entry, "key", entry)) for entry in path]
