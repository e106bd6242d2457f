"""The contract between a network and the rest of fmd.

A model is a Flax Linen module v(x, t, y) called as

    variables = model.init(key, x, t, y)
    v = model.apply(variables, x, t, y, train=False)                          # x [B, H, W, C], t [B], y [B]
    v = model.apply(variables, x, t, y, train=True, rngs={"dropout": key})    # v [B, H, W, C], always float32

- t is float32 in [0, 1]: 0 is noise, 1 is data. It is never cast below float32.
- y is int32 in [0, num_classes]; `num_classes` itself is the null label, a trained row of the label embedding.
  A model with num_classes = 0 is unconditional: y is ignored and may be None.
- All state lies in the collection "params" (no running statistics), so that a step stays a pure function.
- H, W and C are read from x. What the prediction means (velocity, data, noise) is the caller's business.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import flax.errors
import jax
import jax.numpy as jnp


@runtime_checkable
class ConditionalVectorField(Protocol):
    """What fmd asks of a model; any Flax Linen module with this shape will do."""

    num_classes: int

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any: ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...


def check_contract(model: Any, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError with one line where `model` breaks the contract for images of shape (H, W, C).

    Nothing is computed: the model is traced with jax.eval_shape for a batch of two. Errors that the model raises itself
    (a size it cannot take, say) pass through unchanged.
    """
    name = type(model).__name__
    if not isinstance(model, ConditionalVectorField):
        raise ValueError(
            f"model {name} must be a flax.linen.Module with a field num_classes (0 for an unconditional one)"
        )

    batch = 2
    x = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    t = jax.ShapeDtypeStruct((batch,), jnp.float32)
    y = jax.ShapeDtypeStruct((batch,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    variables = jax.eval_shape(model.init, key, x, t, y)
    if extra := sorted(set(variables) - {"params"}):
        raise ValueError(f"model {name} keeps state in {extra}; only the collection 'params' is allowed")

    for train in (False, True):

        def call(variables: Any, key: Any, x: Any, t: Any, y: Any, train: bool = train) -> Any:
            return model.apply(variables, x, t, y, train=train, rngs={"dropout": key})

        out = jax.eval_shape(call, variables, key, x, t, y)
        shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
        if shape != x.shape or dtype != jnp.float32:
            found = f"{dtype}{list(shape)}" if shape is not None else type(out).__name__
            raise ValueError(
                f"model {name} returned {found} for images float32{list(x.shape)} (train={train}); "
                "it must return a float32 array of the shape of x"
            )


def draws_random_numbers(apply: Callable[..., Any], variables: Any, x: Any, t: Any, y: Any) -> bool:
    """Whether `apply(variables, x, t, y, train=True)` needs rngs={"dropout": key}; traced, not computed."""
    try:
        jax.eval_shape(lambda *arguments: apply(*arguments, train=True), variables, x, t, y)
    except flax.errors.InvalidRngError:
        return True
    return False
