"""Exact answers for data that is a Gaussian mixture, sum_k w_k N(m_k, C_k), on any schedule. No training, no solver.

At time t component k is N(alpha m_k, S_k), S_k = alpha^2 C_k + sigma^2 I, with posterior means

    X1_k = m_k + alpha C_k S_k^-1 (x - alpha m_k)        E0_k = sigma S_k^-1 (x - alpha m_k)

and the mixture's are these averaged with responsibilities softmax_k(log w_k + log N(x; alpha m_k, S_k)). The velocity
is alpha' X1 + sigma' E0 and the score the average of -S_k^-1 (x - alpha m_k): none of it goes through `fmd.math.paths`.
Only `schedule.alpha`, `.sigma`, `.d_alpha` and `.d_sigma` are used. Shapes: x [B, d], t scalar or [B]; the dtype is
that of x. A conditional model is `mixture.only(k, ...)`, the unconditional one the mixture itself.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mixture(NamedTuple):
    weights: jax.Array  # [K]
    means: jax.Array  # [K, d]
    covariances: jax.Array  # [K, d, d]; zero gives the closed-form denoiser of a finite data set

    def only(self, *components):
        """The mixture of these components alone, reweighted to sum to one."""
        chosen = jnp.asarray(components)
        weights = self.weights[chosen]
        return Mixture(weights / weights.sum(), self.means[chosen], self.covariances[chosen])

    def data(self, schedule, t, x):
        """E[x1 | x], [B, d]."""
        return _averaged(self, schedule, t, x, _component_data)

    def noise(self, schedule, t, x):
        """E[x0 | x], [B, d]."""
        return _averaged(self, schedule, t, x, _component_noise)

    def score(self, schedule, t, x):
        """grad log p_t, [B, d]."""
        return _averaged(self, schedule, t, x, lambda a, s, m, c, x: -_whitened(a, s, m, c, x))

    def velocity(self, schedule, t, x, args=None):
        """The marginal velocity, [B, d]."""
        rates = jnp.stack([_rows(schedule.d_alpha(t), x), _rows(schedule.d_sigma(t), x)], axis=1)
        return rates[:, :1] * self.data(schedule, t, x) + rates[:, 1:] * self.noise(schedule, t, x)

    def field(self, schedule):
        """The velocity as field(t, x, args=None)."""
        return lambda t, x, args=None: self.velocity(schedule, t, x)

    def log_density(self, schedule, t, x):
        """log p_t(x), [B]."""
        return jax.vmap(lambda a, s, x: jax.nn.logsumexp(_joint(self, a, s, x)))(*_path(schedule, t, x), x)

    def divergence(self, schedule, t, x):
        """div v, [B], by forward differentiation of the exact velocity."""

        def one(t, x):
            return jnp.trace(jax.jacfwd(lambda x: self.velocity(schedule, t, x[None])[0])(x))

        return jax.vmap(one)(_rows(t, x), x)

    def sample(self, key, count):
        """[count, d] samples of the data."""
        which, noise = jax.random.split(key)
        k = jax.random.categorical(which, jnp.log(self.weights), shape=(count,))
        roots = jnp.linalg.cholesky(self.covariances)
        z = jax.random.normal(noise, (count, self.means.shape[1]), self.means.dtype)
        return self.means[k] + jnp.einsum("nij,nj->ni", roots[k], z)


def gaussian(mean, covariance):
    """N(mean [d], covariance [d, d]) as a mixture of one component."""
    mean = jnp.asarray(mean)
    return Mixture(jnp.ones(1, mean.dtype), mean[None], jnp.asarray(covariance)[None])


def isotropic(std, dimensions, dtype=jnp.float32):
    """N(0, std^2 I) in `dimensions` dimensions."""
    return gaussian(jnp.zeros(dimensions, dtype), std**2 * jnp.eye(dimensions, dtype=dtype))


def gaussian_flow(mixture, schedule, start, end, x):
    """The flow map of a single Gaussian from time `start` to `end`: a_t m + (S_t S_r^-1)^(1/2) (x - a_r m), [B, d]."""
    (mean,), (covariance,) = mixture.means, mixture.covariances
    values, vectors = jnp.linalg.eigh(covariance)  # S_t and S_r commute: both are functions of C

    def std(t):
        return jnp.sqrt(schedule.alpha(t) ** 2 * values + schedule.sigma(t) ** 2).astype(x.dtype)

    ratio = (vectors * (std(end) / std(start))[None, :]) @ vectors.T
    shift = [schedule.alpha(t).astype(x.dtype) * mean[None] for t in (start, end)]
    return shift[1] + (x - shift[0]) @ ratio


def gaussian_divergence(mixture, schedule, t):
    """div v of a single Gaussian: trace of (alpha alpha' C + sigma sigma' I) S^-1, the same at every x."""
    values = jnp.linalg.eigvalsh(mixture.covariances[0])
    a, s, da, ds = (f(t) for f in (schedule.alpha, schedule.sigma, schedule.d_alpha, schedule.d_sigma))
    return jnp.sum((a * da * values + s * ds) / (a * a * values + s * s))


def golden_mixture(dtype=jnp.float64):
    """The two-dimensional, three-component mixture of the reference values."""
    return Mixture(
        jnp.asarray([0.2, 0.5, 0.3], dtype),
        jnp.asarray([[1.0, -2.0], [0.0, 1.5], [-2.0, 0.0]], dtype),
        jnp.asarray([[[0.5, 0.2], [0.2, 0.3]], [[0.2, 0.0], [0.0, 0.2]], [[0.1, 0.0], [0.0, 1.0]]], dtype),
    )


def _rows(t, x):
    """t as one value per row of x, in x's dtype."""
    return jnp.broadcast_to(jnp.asarray(t).astype(x.dtype).reshape(-1), x.shape[:1])


def _path(schedule, t, x):
    return _rows(schedule.alpha(t), x), _rows(schedule.sigma(t), x)


def _covariance(a, s, c):
    return a * a * c + s * s * jnp.eye(c.shape[-1], dtype=c.dtype)


def _whitened(a, s, m, c, x):
    return jnp.linalg.solve(_covariance(a, s, c), x - a * m)


def _component_data(a, s, m, c, x):
    return m + a * (c @ _whitened(a, s, m, c, x))


def _component_noise(a, s, m, c, x):
    return s * _whitened(a, s, m, c, x)


def _joint(mixture, a, s, x):
    """log w_k + log N(x; a m_k, S_k), [K], for one x [d]."""

    def one(weight, m, c):
        covariance = _covariance(a, s, c)
        distance = (x - a * m) @ jnp.linalg.solve(covariance, x - a * m)
        log_determinant = jnp.linalg.slogdet(covariance)[1]
        return jnp.log(weight) - 0.5 * (distance + log_determinant + x.size * jnp.log(2 * jnp.pi).astype(x.dtype))

    return jax.vmap(one)(*mixture)


def _averaged(mixture, schedule, t, x, component):
    def one(a, s, x):
        shares = jax.nn.softmax(_joint(mixture, a, s, x))
        values = jax.vmap(lambda m, c: component(a, s, m, c, x))(mixture.means, mixture.covariances)
        return shares @ values

    return jax.vmap(one)(*_path(schedule, t, x), x)
