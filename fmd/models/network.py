"""A model with its parameters as the `Network` that methods call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from fmd.blocks import Plain
from fmd.models import conditions
from fmd.models.contract import Model
from fmd.types import Condition, Images, Mask, Params, Times


@dataclass(frozen=True)
class ModelNetwork:
    """`apply` of a Flax model with parameters; `train` switches dropout on, with a key for each example.

    The masks of dropout then do not depend on how a batch is split; `vmap` fuses back into one batch.
    """

    apply: Callable[..., Images]
    params: Params
    num_classes: int
    conditions: Plain | None = None
    train: bool = False
    dropout_keys: Key[Array, " B"] | None = None

    def __call__(
        self, x: Images, t: Times, y: Condition, r: Times | None = None, w: Float[Array, " B"] | None = None
    ) -> Images:
        variables = {"params": self.params}
        more = {name: value for name, value in (("r", r), ("w", w)) if value is not None}
        if self.dropout_keys is None:
            return self.apply(variables, x, t, y, train=self.train, **more)

        def one(key: Key[Array, ""], example: PyTree) -> Images:
            x, t, y, more = jax.tree.map(lambda a: a[None], example)
            return self.apply(variables, x, t, y, train=True, rngs={"dropout": key}, **more)[0]

        return jax.vmap(one)(self.dropout_keys, (x, t, y, more))

    def drop(self, y: Condition, mask: Mask | None = None, parts: Sequence[str] | None = None) -> Condition:
        return conditions.drop(y, self.conditions, self.num_classes, mask=mask, parts=parts)


def with_xla_attention(model: Model) -> Model:
    """The network with attention that has forward-mode derivatives, where it asks cuDNN for it."""
    if getattr(model, "attention", None) != "cudnn":
        return model
    plain: Model = model.clone(attention="xla")  # type: ignore[attr-defined]
    return plain


def in_float32(model: Model) -> Model:
    """The network computing in float32 with the same parameters, where it has a field `dtype`."""
    dtype = getattr(model, "dtype", None)
    if dtype is None or jnp.dtype(dtype).itemsize >= np.dtype(np.float32).itemsize:
        return model
    wide: Model = model.clone(dtype="float32" if isinstance(dtype, str) else jnp.float32)  # type: ignore[attr-defined]
    return wide
