// What fmd computes in Python, on Float32Arrays: noise, a walk between two noises, jumps, the guided flow, pixels.
//
// t = 0 is noise and t = 1 is data, along x_t = t x1 + (1 - t) x0. A network is an asynchronous function
//
//     network(x [B * size], t, labels [B], r, weight) -> [B * size]
//
// whose value at r = t is the velocity. Sums are taken in double precision and stored in single.

// The standard normal numbers of image 0 that fmd draws with `jax.random.key(seed)`: jax.random.normal, of threefry.
export function normal(seed, size) {
  const key = threefry([Math.floor(seed / 2 ** 32), seed >>> 0], 0, 0); // fold_in(key, 0)
  const low = -1 + 2 ** -24; // the float32 after -1
  return Float32Array.from({ length: size }, (_, i) => {
    const [a, b] = threefry(key, 0, i);
    const unit = ((a ^ b) >>> 9) / 2 ** 23;
    return Math.SQRT2 * inverseErf(Math.max(low, Math.fround(2 * unit + low)));
  });
}

// Threefry-2x32 of 20 rounds (Salmon et al. 2011): two random words of a key and two counters.
export function threefry([k0, k1], x0, x1) {
  const keys = [k0, k1, k0 ^ k1 ^ 0x1bd11bda];
  const turns = [[13, 15, 26, 6], [17, 29, 16, 24]];
  [x0, x1] = [(x0 + k0) | 0, (x1 + k1) | 0];
  for (let i = 0; i < 5; i++) {
    for (const turn of turns[i % 2]) {
      x0 = (x0 + x1) | 0;
      x1 = ((x1 << turn) | (x1 >>> (32 - turn))) ^ x0;
    }
    x0 = (x0 + keys[(i + 1) % 3]) | 0;
    x1 = (x1 + keys[(i + 2) % 3] + i + 1) | 0;
  }
  return [x0 >>> 0, x1 >>> 0];
}

// Giles' approximation in single precision (2012), which XLA computes.
const NEAR = [2.81022636e-8, 3.43273939e-7, -3.5233877e-6, -4.39150654e-6, 2.1858087e-4, -1.25372503e-3, -4.17768164e-3,
  0.246640727, 1.50140941];
const FAR = [-2.00214257e-4, 1.00950558e-4, 1.34934322e-3, -3.67342844e-3, 5.73950773e-3, -7.6224613e-3, 9.43887047e-3,
  1.00167406, 2.83297682];

function inverseErf(x) {
  const w = -Math.log1p(-x * x);
  const [coefficients, z] = w < 5 ? [NEAR, w - 2.5] : [FAR, Math.sqrt(w) - 3];
  return x * coefficients.reduce((sum, c) => sum * z + c);
}

// The point a share of the way from a to b along the arc between them; see `fmd.math.editing.slerp`.
export function slerp(a, b, share) {
  const [lengthA, lengthB] = [a, b].map((x) => Math.hypot(...x));
  let apart = 0, together = 0;
  for (let i = 0; i < a.length; i++) {
    apart += (a[i] / lengthA - b[i] / lengthB) ** 2;
    together += (a[i] / lengthA + b[i] / lengthB) ** 2;
  }
  const angle = 2 * Math.atan2(Math.sqrt(apart), Math.sqrt(together));
  const part = (s) => (angle < 1e-4 ? s : Math.sin(s * angle) / Math.sin(angle));
  const length = (1 - share) * lengthA + share * lengthB;
  const [wa, wb] = [(length * part(1 - share)) / lengthA, (length * part(share)) / lengthB];
  return a.map((value, i) => wa * value + wb * b[i]);
}

// The states from noise to image of `steps` equal jumps x + (r - t) U(x, t, r), one evaluation each.
export async function jump(network, noise, labels, { steps, weight, clip }) {
  const states = [noise];
  for (let i = 0; i < steps; i++) {
    const [t, r] = [i / steps, (i + 1) / steps].map(Math.fround);
    const u = await network(states[i], t, labels, r, weight);
    states.push(along(states[i], r - t, clip ? clipped(u, states[i], t) : u));
  }
  return states;
}

// The states of `steps` equal steps of the guided flow, by the midpoint rule or by Heun's, two evaluations each.
export async function flow(network, noise, labels, { solver, steps, weight, clip, untold }) {
  const field = guided(network, { weight, clip, untold });
  const states = [noise];
  for (let i = 0; i < steps; i++) {
    const [t, r] = [i / steps, (i + 1) / steps].map(Math.fround);
    const x = states[i], h = r - t;
    const v = await field(x, t, labels);
    if (solver === "midpoint") {
      states.push(along(x, h, await field(along(x, h / 2, v), t + h / 2, labels)));
    } else {
      const end = await field(along(x, h, v), r, labels);
      states.push(along(x, h / 2, v.map((value, k) => value + end[k])));
    }
  }
  return states;
}

// v_null + weight (v_cond - v_null), both halves in one batch; weights 0 and 1 need one half.
function guided(network, { weight, clip, untold }) {
  const inside = (v, x, t) => (clip ? clipped(v, x, t) : v);
  return async (x, t, labels) => {
    const nothing = labels.map(() => untold);
    if (weight === 0 || weight === 1) return inside(await network(x, t, weight ? labels : nothing, t), x, t);
    const twice = joined(x, x);
    const both = inside(await network(twice, t, joined(nothing, labels), t), twice, t);
    const half = x.length;
    return inside(x.map((_, k) => both[k] + weight * (both[half + k] - both[k])), x, t);
  };
}

// The velocity, or that of a jump, whose end x + (1 - t) v is inside [-1, 1]; see `fmd.math.few_step.clip_end`.
function clipped(v, x, t) {
  return v.map((value, k) => {
    const data = x[k] + (1 - t) * value;
    return value + (Math.min(Math.max(data, -1), 1) - data) / Math.max(1 - t, 0.01);
  });
}

// Numbers 0 to 255 of an image in [-1, 1], as fmd rounds them.
export function pixels(x) {
  return Uint8ClampedArray.from(x, (value) => (value + 1) * 127.5); // rounds half to even, and clips
}

const along = (x, step, v) => x.map((value, k) => value + step * v[k]);

function joined(a, b) {
  const both = new a.constructor(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
