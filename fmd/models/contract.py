"""The contract between a network and the rest of fmd.

A model is a Flax Linen module v(x, t, y) called as

    variables = model.init(key, x, t, y)
    v = model.apply(variables, x, t, y, train=False)                          # x [B, H, W, C], t [B], y [B]
    v = model.apply(variables, x, t, y, train=True, rngs={"dropout": key})    # v [B, H, W, C], always float32
    u = model.apply(variables, x, t, y, train=False, r=r)                     # r [B]: models with a second time
    u = model.apply(variables, x, t, y, train=False, r=r, w=w)                # w [B]: and with guidance weights

- t is float32 in [0, 1]: 0 is noise, 1 is data. It is never cast below float32.
- y is int32 in [0, num_classes]; `num_classes` itself is the null label, a trained row of the label embedding.
  A model with num_classes = 0 is unconditional: y is ignored and may be None.
- A model with a field `conditions` can be told more: y is then a dictionary of the parts that this field lists
  (`fmd.models.conditions`), and num_classes does not matter to it.
- A model with a second time predicts for the step from t to r >= t. Without r it predicts for r = t. A model with a
  guidance weight predicts as guided by w > 0. Without w it predicts for w = 1.
- All state lies in the collection "params" (no running statistics), so that a step stays a pure function.
- A model that runs its blocks in an `nn.scan` names the scan in `stacked` and makes the block with
  `fmd.models.stacks.scanned`. Devices that each hold a part of every block then gather one block at a time.
- H, W and C are read from x. The meaning of the prediction (velocity, data, noise) is the caller's business.
"""

import functools
import inspect
from typing import Any, Protocol, runtime_checkable

import flax.errors
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fmd.models import conditions as kinds


@runtime_checkable
class Model(Protocol):
    """A network without its parameters: any Flax Linen module of this shape."""

    num_classes: int

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """The variables: {"params": ...}."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """The prediction [B, H, W, C]."""
        ...


def check_contract(
    model: object,
    image_shape: tuple[int, ...],
    conditions: kinds.Spec | None = None,
    second_time: bool = False,
    guidance_input: bool = False,
) -> bool:
    """True where `model` needs rngs={"dropout": key} in training.

    Nothing is computed: the model is traced for a batch of two. Errors that the model raises itself (a size that it
    cannot take) pass through unchanged.

    Args:
        model: a Flax module.
        image_shape: (H, W, C).
        conditions: what it is to be told, None for labels alone.
        second_time: True where it must take a second time r.
        guidance_input: True where it must take a guidance weight w.

    Raises:
        ValueError: with one line where the model breaks the contract.
    """
    name = type(model).__name__
    if not isinstance(model, Model):
        raise ValueError(
            f"model {name} must be a flax.linen.Module with a field num_classes (0 for an unconditional one)"
        )
    if conditions is not None and not hasattr(model, "conditions"):
        raise ValueError(
            f"model {name} cannot be told {', '.join(conditions)}: it has no field conditions "
            "(see fmd.models.conditions); use another model, or labels alone"
        )
    if second_time and not _takes(model, "r"):
        raise ValueError(f"model {name} has no second time: its call takes no r, which the method needs")

    if guidance_input and not _takes(model, "w"):
        raise ValueError(f"model {name} has no guidance weight: its call takes no w, which the method needs")

    variables, (x, t, y), later = _trace(model, image_shape, conditions, second_time, guidance_input)
    key = jax.eval_shape(jax.random.key, 0)
    alone = jax.eval_shape(model.init, key, x, t, y) if later else variables
    structure: object = jax.tree.structure(variables)
    if structure != jax.tree.structure(alone):
        raise ValueError(
            f"model {name} makes other parameters where it is told {' and '.join(later)}; its fields must say which, "
            f"e.g. second_time, since a model is made without: r is t there"
        )
    if extra := sorted(set(variables) - {"params"}):
        raise ValueError(f"model {name} keeps state in {extra}; only the collection 'params' is allowed")
    stacked = getattr(model, "stacked", ())
    if stacked and not set(stacked) & set(variables["params"]):
        raise ValueError(
            f"model {name} says that {', '.join(stacked)} is a stack of blocks, but its parameters are "
            f"{', '.join(variables['params'])}; name its nn.scan in `stacked`"
        )

    untold = jax.eval_shape(lambda y: kinds.drop(y, conditions, model.num_classes), y)
    rngs: dict[str, PyTree] = {}
    for train in (False, True):
        call = functools.partial(model.apply, train=train)  # one function: conditions of one shape are traced once
        for told in (y, untold):
            try:
                out = jax.eval_shape(call, variables, x, t, told, **rngs, **later)
            except flax.errors.InvalidRngError:
                if not train:
                    raise ValueError(f"model {name} draws random numbers with train=False; only training may") from None
                rngs = {"rngs": {"dropout": key}}
                out = jax.eval_shape(call, variables, x, t, told, **rngs, **later)
            shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
            if shape != x.shape or dtype != jnp.float32:
                found = f"{dtype}{list(shape)}" if shape is not None else type(out).__name__
                raise ValueError(
                    f"model {name} returned {found} for images float32{list(x.shape)} (train={train}); "
                    "it must return a float32 array of the shape of x"
                )
    return bool(rngs)


def _trace(
    model: Model,
    image_shape: tuple[int, ...],
    conditions: kinds.Spec | None,
    second_time: bool,
    guidance_input: bool,
) -> tuple[PyTree, tuple[PyTree, PyTree, PyTree], dict[str, PyTree]]:
    """The shapes of the variables, of the arguments (x, t, y), and of r and w by name.

    The batch is two.
    """

    def examples() -> PyTree:
        return jax.random.key(0), jnp.zeros((2, *image_shape)), jnp.zeros(2), kinds.example(conditions, 2)

    key, x, t, y = jax.eval_shape(examples)
    later = {name: t for name, wanted in (("r", second_time), ("w", guidance_input)) if wanted}
    return jax.eval_shape(model.init, key, x, t, y, **later), (x, t, y), later


def _takes(model: Model, name: str) -> bool:
    """True where the call of the model takes this parameter."""
    parameters = inspect.signature(type(model).__call__).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
