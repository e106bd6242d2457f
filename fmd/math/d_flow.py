"""D-Flow (2402.14017): the noise whose image is measured as y, found by L-BFGS through the flow.

    |A Phi(x0) - y|^2 + weight (|x0|^2/2 - (d - 1) log |x0|)

is minimised over the noise x0 of each example, Phi the flow in `flow_steps` midpoint steps. The second term is least on
the sphere |x0|^2 = d - 1, near which normal noise lies. The start is sqrt(blend) Phi^-1(A+ y) + sqrt(1 - blend) noise;
an operator that is not linear has no A+, and starts from noise alone.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from fmd.math.editing import invert
from fmd.math.restoration import Problem, register, size_of
from fmd.registry import Between
from fmd.types import Images, Number

Count = Annotated[int, Between(1)]


@register("d_flow")
@dataclass(frozen=True)
class DFlow:
    """The most likely noise; `steps` of `restore` counts the iterations of L-BFGS."""

    flow_steps: Count = 6
    weight: Annotated[Number, Between(0.0)] = 0.01
    blend: Annotated[Number, Between(0.0, 1.0)] = 0.1
    memory: Count = 10

    linear, noisy = False, False

    def draw(self, problem: Problem, x0: Images, steps: int) -> Images:
        optimiser = optax.lbfgs(memory_size=self.memory)
        rows, size = x0.shape[0], size_of(x0)

        def flow(x0: Images, args: PyTree) -> Images:
            def step(x: Images, t: Array) -> tuple[Images, None]:
                middle = x + half * problem.field(t, x, args).astype(x.dtype)
                return x + 2 * half * problem.field(t + half, middle, args).astype(x.dtype), None

            times = jnp.linspace(0.0, 1.0, self.flow_steps, endpoint=False, dtype=x0.dtype)
            half = 0.5 / self.flow_steps
            return jax.lax.scan(step, x0 * problem.schedule.prior_std, times)[0]

        def lowest(x0: Float[Array, "..."], y: Float[Array, "..."], args: PyTree) -> Float[Array, "..."]:
            """The best noise of one example; it is solved as a batch of one."""

            def loss(x0: Float[Array, "..."]) -> Float[Array, ""]:
                miss = problem.operator(flow(x0[None], args)) - y[None]
                square = jnp.sum(x0**2)
                return jnp.sum(miss**2) + self.weight * (square / 2 - (size - 1) * jnp.log(square) / 2)

            value_and_grad = optax.value_and_grad_from_state(loss)

            def step(_: object, carry: PyTree) -> PyTree:
                x0, state = carry
                value, slope = value_and_grad(x0, state=state)
                change, state = optimiser.update(slope, state, x0, value=value, grad=slope, value_fn=loss)
                return optax.apply_updates(x0, change), state

            x0, _ = jax.lax.fori_loop(0, steps, step, (x0, optimiser.init(x0)))
            return x0

        if problem.operator.linear and self.blend:
            seen = problem.operator.pseudo_inverse(problem.measurement)
            back = invert(problem.field, seen, args=problem.args, steps=self.flow_steps) / problem.schedule.prior_std
            x0 = self.blend**0.5 * back + (1 - self.blend) ** 0.5 * x0

        # Leaves of args with the batch axis first become one row with an axis of 1; others are the same for all.
        def axis(leaf: Array) -> int | None:
            return 0 if jnp.shape(leaf)[:1] == (rows,) else None

        own = jax.tree.map(lambda leaf: leaf[:, None] if axis(leaf) == 0 else leaf, problem.args)
        x0 = jax.vmap(lowest, in_axes=(0, 0, jax.tree.map(axis, problem.args)))(x0, problem.measurement, own)
        return flow(x0, problem.args)
