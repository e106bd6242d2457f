"""Exact answers for data that is a Gaussian mixture, sum_k w_k N(m_k, C_k), on any schedule. No training, no solver.

At time t component k is N(alpha m_k, S_k), S_k = alpha^2 C_k + sigma^2 I, with posterior means

    X1_k = m_k + alpha C_k S_k^-1 (x - alpha m_k)        E0_k = sigma S_k^-1 (x - alpha m_k)

and the mixture's are these averaged with responsibilities softmax_k(log w_k + log N(x; alpha m_k, S_k)). The velocity
is alpha' X1 + sigma' E0 and the score the average of -S_k^-1 (x - alpha m_k): none of it goes through `fmd.math.paths`.
Only `schedule.alpha`, `.sigma`, `.d_alpha` and `.d_sigma` are used. Shapes: x [B, d], t scalar or [B]; the dtype is
that of x. A conditional model is `mixture.only(k, ...)`, the unconditional one the mixture itself.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Mixture(NamedTuple):
    weights: np.ndarray  # [K], constants like the rest: build a mixture outside of jit
    means: np.ndarray  # [K, d]
    covariances: np.ndarray  # [K, d, d]; zero gives the closed-form denoiser of a finite data set

    def only(self, *components):
        """The mixture of these components alone, reweighted to sum to one."""
        chosen = list(components)
        weights = self.weights[chosen]
        return Mixture(weights / weights.sum(), self.means[chosen], self.covariances[chosen])

    def data(self, schedule, t, x):
        """E[x1 | x], [B, d]."""
        return self._at(schedule, t, x).average(lambda p: p.data)

    def noise(self, schedule, t, x):
        """E[x0 | x], [B, d]."""
        return self._at(schedule, t, x).average(lambda p: p.noise)

    def score(self, schedule, t, x):
        """grad log p_t, [B, d]."""
        return self._at(schedule, t, x).average(lambda p: -p.whitened)

    def velocity(self, schedule, t, x, args=None):
        """The marginal velocity, [B, d]."""
        d_alpha, d_sigma = (_rows(f(t), x)[:, None, None] for f in (schedule.d_alpha, schedule.d_sigma))
        return self._at(schedule, t, x).average(lambda p: d_alpha * p.data + d_sigma * p.noise)

    def field(self, schedule):
        """The velocity as field(t, x, args=None)."""
        return lambda t, x, args=None: self.velocity(schedule, t, x)

    def log_density(self, schedule, t, x):
        """log p_t(x), [B]."""
        return jax.nn.logsumexp(self._at(schedule, t, x).joint, axis=1)

    def divergence(self, schedule, t, x):
        """div v, [B], by forward differentiation of the exact velocity."""

        def one(t, x):
            return jnp.trace(jax.jacfwd(lambda x: self.velocity(schedule, t, x[None])[0])(x))

        return jax.vmap(one)(_rows(t, x), x)

    def _at(self, schedule, t, x):
        values, vectors = _eigen(self.covariances, x.dtype)
        weights, means = jnp.asarray(self.weights, x.dtype), jnp.asarray(self.means, x.dtype)
        return _posterior(schedule, t, x, weights, means, values, vectors)

    def sample(self, key, count, dtype=jnp.float32):
        """[count, d] samples of the data."""
        which, noise = jax.random.split(key)
        k = jax.random.categorical(which, jnp.log(jnp.asarray(self.weights, dtype)), shape=(count,))
        values, vectors = _eigen(self.covariances, dtype)
        z = jax.random.normal(noise, (count, self.means.shape[1]), dtype)
        return jnp.asarray(self.means, dtype)[k] + jnp.einsum("nij,nj->ni", vectors[k], jnp.sqrt(values)[k] * z)


def gaussian(mean, covariance):
    """N(mean [d], covariance [d, d]) as a mixture of one component."""
    return Mixture(np.ones(1), np.asarray(mean, np.float64)[None], np.asarray(covariance, np.float64)[None])


def isotropic(std, dimensions):
    """N(0, std^2 I) in `dimensions` dimensions."""
    return gaussian(np.zeros(dimensions), std**2 * np.eye(dimensions))


def gaussian_flow(mixture, schedule, start, end, x):
    """The flow map of a single Gaussian from time `start` to `end`: a_t m + (S_t S_r^-1)^(1/2) (x - a_r m), [B, d]."""
    mean = jnp.asarray(mixture.means[0], x.dtype)
    values, vectors = (part[0] for part in _eigen(mixture.covariances, x.dtype))

    def std(t):
        alpha, sigma = schedule.alpha(t).astype(x.dtype), schedule.sigma(t).astype(x.dtype)
        return jnp.sqrt(alpha**2 * values + sigma**2)

    ratio = (vectors * (std(end) / std(start))[None, :]) @ vectors.T
    shift = [schedule.alpha(t).astype(x.dtype) * mean[None] for t in (start, end)]
    return shift[1] + (x - shift[0]) @ ratio


def gaussian_divergence(mixture, schedule, t):
    """div v of a single Gaussian: trace of (alpha alpha' C + sigma sigma' I) S^-1, the same at every x."""
    values = np.linalg.eigvalsh(mixture.covariances[0])
    a, s, da, ds = (np.asarray(f(t)) for f in (schedule.alpha, schedule.sigma, schedule.d_alpha, schedule.d_sigma))
    return np.sum((a * da * values + s * ds) / (a * a * values + s * s))


def average_velocity(growth, x, t, r, mean=0.0):
    """U(x, t, r) = m + (k - 1)/(r - t) (x - t m) of the flow X = r m + k (x - t m), k = growth(t, r), [B, d].

    At r = t it is the velocity, m + dk/dr (x - t m).
    """
    k, slope = jax.jvp(lambda r: growth(t, r), (r,), (jnp.ones_like(r),))
    rate = jnp.where(r == t, slope, (k - 1) / jnp.where(r == t, 1.0, r - t))
    return mean + rate[:, None] * (x - t[:, None] * mean)


def spread(std, t):
    """Standard deviation of x_t on the linear path to N(m, std^2)."""
    return jnp.sqrt(t**2 * std**2 + (1 - t) ** 2)


def gaussian_growth(std):
    """growth(t, r) of the linear path to N(m, std^2): S_r / S_t."""
    return lambda t, r: spread(std, r) / spread(std, t)


def guided_growth(cond, null, weight):
    """growth(t, r) of the guided linear path, label N(0, cond^2), null label N(0, null^2)."""
    one, other = gaussian_growth(cond), gaussian_growth(null)
    return lambda t, r: one(t, r) ** weight * other(t, r) ** (1 - weight)


def mixture_flow(mixture, t, r, x):
    """The flow map of a one-dimensional mixture on the linear path, [B, 1]: it keeps the distribution function.

    The root is found by bisection; one Newton step gives it its derivatives.
    """
    weights, means, stds = (jnp.asarray(v).reshape(1, -1) for v in (*mixture[:2], np.sqrt(mixture.covariances)))

    def distribution(t, x):
        t = t[:, None]
        return (weights * jax.scipy.special.ndtr((x - t * means) / spread(stds, t))).sum(axis=1, keepdims=True)

    target = distribution(t, x)

    def halve(_, ends):
        middle = (ends[0] + ends[1]) / 2
        below = distribution(r, middle) < target
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    low, high = jax.lax.fori_loop(0, 60, halve, (jnp.full_like(x, -50.0), jnp.full_like(x, 50.0)))
    root = jax.lax.stop_gradient((low + high) / 2)
    value, density = jax.jvp(lambda x: distribution(r, x), (root,), (jnp.ones_like(x),))
    return root + (target - value) / jax.lax.stop_gradient(density)


def golden_mixture():
    """The two-dimensional, three-component mixture of the reference values."""
    return Mixture(
        np.asarray([0.2, 0.5, 0.3]),
        np.asarray([[1.0, -2.0], [0.0, 1.5], [-2.0, 0.0]]),
        np.asarray([[[0.5, 0.2], [0.2, 0.3]], [[0.2, 0.0], [0.0, 0.2]], [[0.1, 0.0], [0.0, 1.0]]]),
    )


class _Posterior(NamedTuple):
    """Per row of x and component: log w_k N(x; a m_k, S_k) [B, K], X1_k, E0_k and S_k^-1 (x - a m_k), [B, K, d]."""

    joint: jax.Array
    data: jax.Array
    noise: jax.Array
    whitened: jax.Array

    def average(self, of):
        """The mixture's value [B, d] of a component value."""
        return jnp.sum(jax.nn.softmax(self.joint, axis=1)[:, :, None] * of(self), axis=1)


@partial(jax.jit, static_argnums=0)  # one program, where each operation would be one
def _posterior(schedule, t, x, weights, means, values, vectors):
    a, s = (_rows(f(t), x)[:, None, None] for f in (schedule.alpha, schedule.sigma))
    variances = a * a * values[None] + s * s
    offset = jnp.einsum("kij,bki->bkj", vectors, x[:, None] - a * means[None])
    log_joint = jnp.log(weights)[None] - 0.5 * jnp.sum(
        offset**2 / variances + jnp.log(2.0 * math.pi * variances), axis=2
    )

    def back(coordinates):
        return jnp.einsum("kij,bkj->bki", vectors, coordinates)

    whitened = back(offset / variances)
    data = means[None] + a * back(values[None] * offset / variances)
    return _Posterior(log_joint, data, s * whitened, whitened)


def _rows(t, x):
    """t as one value per row of x, in x's dtype."""
    return jnp.broadcast_to(jnp.asarray(t).astype(x.dtype).reshape(-1), x.shape[:1])


def _eigen(covariances, dtype):
    """Eigenvalues [K, d] and eigenvectors [K, d, d], as constants: every S_k is a function of C_k."""
    values, vectors = np.linalg.eigh(covariances)
    return jnp.asarray(values, dtype), jnp.asarray(vectors, dtype)
