"""Operators: linear maps A from an image to a measurement y = A x, with their transpose and pseudo-inverse.

`get(name, **params)` gives an operator, called as A(x), with A.transpose(y) and A.pseudo_inverse(y): the transpose has
<A x, y> = <x, A^T y>, the pseudo-inverse A A+ A = A.

    name            A x                                     shape of y          A+ y
    identity        x                                       that of x           y
    mask            x where it is seen, else 0              that of x           y where it is seen
    block_average   means of factor x factor pixels         H/f, W/f            each value repeated
    subsample       each factor-th pixel                    H/f, W/f            zeros between
    blur            a Gaussian, mirrored at the edges       that of x           frequencies above `cutoff`
    grey            a weighted mean of the channels         one channel         the shortest x
    compose         one after the other                                         conjugate gradients

Images are [..., H, W, C], usually [B, H, W, C]; identity and mask take arrays of any shape. Results are in the dtype of
the argument. An operator of your own is a function of a batch [B, ...] whose examples do not interact; its transpose
is JAX's:

    flip = operators.from_function(lambda x: x[:, :, ::-1], shape=(28, 28, 1))

    @operators.register("upside_down")
    def upside_down() -> Operator:
        return Operator("upside_down", lambda x: jnp.flip(x, -3), adjoint=lambda y: jnp.flip(y, -3))

Where no pseudo-inverse is given, it is found by conjugate gradients. A function that is not linear is declared so,
`from_function(f, shape, linear=False)`, and serves the methods that need its derivative alone.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.math import conjugate_gradients
from fmd.registry import Registry

Values = Float[Array, "..."]
Map = Callable[[Values], Values]
Shape = tuple[int, ...]

INVERSE_STEPS = 100
"""Steps of conjugate gradients behind a pseudo-inverse that has no closed form."""


@dataclass(frozen=True, eq=False)
class Operator:
    """A map of images to measurements.

    name      for messages
    forward   x [B, ...] -> y [B, ...]
    adjoint   y -> A^T y; None: by `jax.linear_transpose`, which needs `shape`
    inverse   y -> A+ y; None: by conjugate gradients on A^T A
    shape     of one x without its batch, where the operator takes one shape alone or needs it to be transposed
    linear    False for a function of which only the derivative is used
    params    what it was made with, hashable: operators of equal name, shape and params are equal, and share one
              compiled program. None: equal to itself alone
    """

    name: str
    forward: Map
    adjoint: Map | None = None
    inverse: Map | None = None
    shape: Shape | None = None
    linear: bool = True
    params: tuple[Hashable, ...] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operator) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> Hashable:
        return id(self) if self.params is None else (self.name, self.shape, self.params)

    def __call__(self, x: Values) -> Values:
        """A x. ValueError for an x of the wrong shape."""
        if self.shape is not None and x.shape[x.ndim - len(self.shape) :] != self.shape:
            raise ValueError(f"operator {self.name!r} takes images {self.shape}, not {x.shape}")
        return self.forward(x)

    def transpose(self, y: Values) -> Values:
        """A^T y. ValueError where A is not linear, or of one's own and its shape is not known."""
        if not self.linear:
            raise ValueError(f"operator {self.name!r} is not linear and has no transpose")
        if self.adjoint is not None:
            return self.adjoint(y)
        if self.shape is None:
            raise ValueError(f"operator {self.name!r} needs the shape of an image to be transposed: give shape=(...)")
        x = jax.ShapeDtypeStruct((*y.shape[: self._batch_axes(y)], *self.shape), y.dtype)
        image: Values = jax.linear_transpose(self.forward, x)(y)[0]
        return image

    def pseudo_inverse(self, y: Values) -> Values:
        """A+ y: of all x with the least |A x - y| the shortest. ValueError as `transpose`."""
        if self.inverse is not None:
            return self.inverse(y)
        return conjugate_gradients.solve(lambda x: self.transpose(self(x)), self.transpose(y), steps=INVERSE_STEPS)

    def on(self, shape: Shape) -> "Operator":
        """This operator for images of one `shape`, without the batch.

        Raises ValueError, in one line, where it does not take that shape, and where a function of one's own that is
        said to be linear is not.
        """
        if self.shape not in (None, shape):
            raise ValueError(f"operator {self.name!r} takes images {self.shape}; the model's are {shape}")
        bound = replace(self, shape=shape)
        bound.measured(shape)
        if self.linear and self.adjoint is None:
            check_linear(bound)
        return bound

    def measured(self, shape: Shape) -> Shape:
        """The shape of y, without the batch, for images of `shape`. ValueError for one that it does not take."""
        try:
            made: Shape = jax.eval_shape(self, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]
            return made
        except (TypeError, ValueError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"operator {self.name!r} does not take images {shape}: {reason}") from None

    def _batch_axes(self, y: Values) -> int:
        assert self.shape is not None
        return y.ndim - len(self.measured(self.shape))


OF_IMAGES = dict.fromkeys(("mask", "block_average", "subsample", "blur", "grey"), "fmd.math.image_operators")
OPERATORS: Registry[Operator] = Registry("operator", built_in=OF_IMAGES, makes=Operator)
register = OPERATORS.register


def get(name: str, **params: object) -> Operator:
    """The operator called `name`. ValueError for an unknown name or parameter or a value out of range."""
    return OPERATORS.build(name, params)


def from_function(function: Map, shape: Shape | None = None, *, linear: bool = True, name: str = "") -> Operator:
    """An operator from a function x [B, ...] -> y [B, ...]; with `shape`, of one image, it is checked for linearity."""
    params = (function, linear) if isinstance(function, Hashable) else None
    operator = Operator(name or getattr(function, "__name__", "function"), function, linear=linear, params=params)
    return operator if shape is None else operator.on(tuple(shape))


def check_linear(operator: Operator) -> None:
    """Raises ValueError where A(2 u - 3 w) is not 2 A(u) - 3 A(w) for two random images u and w."""
    assert operator.shape is not None
    shape = (1, *operator.shape)
    with jax.ensure_compile_time_eval():
        u, w = (jax.random.normal(jax.random.key(seed), shape, jnp.float32) for seed in (0, 1))
        whole, parts = operator(2 * u - 3 * w), 2 * operator(u) - 3 * operator(w)
        difference, size = (float(jnp.max(jnp.abs(v), initial=0.0)) for v in (whole - parts, whole))
    if not difference <= 1e-3 * max(size, 1e-3):
        raise ValueError(
            f"operator {operator.name!r} is not linear: A(2u - 3w) and 2 A(u) - 3 A(w) differ by {difference:.3g}; "
            f"declare it with linear=False, for method 'tweedie', 'pigdm' or 'd_flow'"
        )


@register("identity")
def identity() -> Operator:
    """y = x: denoising."""
    return Operator("identity", _same, _same, _same, params=())


@register("compose")
def compose(parts: Sequence[Operator]) -> Operator:
    """The operators of `parts` one after the other, the first one first."""
    if not parts:
        raise ValueError("operator 'compose' needs at least one part")
    name, linear = " then ".join(part.name for part in parts), all(part.linear for part in parts)

    def forward(x: Values) -> Values:
        return reduce(lambda value, part: part(value), parts, x)

    def adjoint(y: Values) -> Values:
        return reduce(lambda value, part: part.transpose(value), reversed(parts), y)

    known = all(part.adjoint is not None or part.shape is not None for part in parts)
    return Operator(name, forward, adjoint if known else None, shape=parts[0].shape, linear=linear, params=tuple(parts))


def _same(x: Values) -> Values:
    return x
