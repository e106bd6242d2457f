"""Trains the classifiers whose features judge samples of MNIST and Fashion-MNIST (fmd/evaluation/domain.py).

    export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
    python experiments/classifiers/train.py mnist --epochs=8 --out=runs/classifiers
    python experiments/classifiers/train.py fashion_mnist --epochs=12 --out=runs/classifiers

Batch normalisation is used in training only: it is folded into the layers before, everything is rounded to float16, and
the accuracy reported is that of the file as it is shipped. A file that exists is not replaced.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from fmd import data
from fmd.data.order import batch_indices
from fmd.devices import cpu_compiler_options
from fmd.evaluation.features import domain
from fmd.files import atomic_path, digest
from fmd.math.pixels import to_unit
from fmd.models.layers import fold
from fmd.training.augment import mirror_and_move

BATCH = 128
LAYERS = {  # kind, width, and whether 2x2 pixels are folded into channels before
    "mnist": (
        ("conv", 64, True),
        ("conv", 64, False),
        ("linear", 128, True),
        ("conv", 128, False),
        ("conv", 128, False),
    ),
    "fashion_mnist": (
        ("conv", 32, False),
        ("linear", 64, True),
        ("conv", 64, False),
        ("conv", 64, False),
        ("linear", 160, True),
        ("conv", 160, False),
        ("conv", 160, False),
    ),
}
AUGMENTATION = {  # pixels that training images are moved by at most, whether half of them are mirrored, and dropout
    "mnist": (2, False, 0.3),
    "fashion_mnist": (1, True, 0.1),
}
AVERAGE = 0.998
NORM_EPSILON = 1e-5


class Trainable(nn.Module):
    """The network of `domain` with batch normalisation after each layer, and dropout."""

    layers: tuple[tuple[str, int, bool], ...]
    dropout: float
    classes: int = 10

    @nn.compact
    def __call__(self, x, train):
        for i, (kind, width, folded) in enumerate(self.layers):
            if folded:
                x = fold(x, 2)
            layer = partial(nn.Conv, kernel_size=(3, 3)) if kind == "conv" else nn.Dense
            x = layer(width, use_bias=False, name=f"layer_{i}")(x)
            norm = nn.BatchNorm(use_running_average=not train, momentum=0.98, epsilon=NORM_EPSILON, name=f"norm_{i}")
            x = nn.relu(norm(x))
        x = nn.relu(nn.Dense(domain.HIDDEN, name="hidden")(x.mean(axis=(1, 2))))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, name="logits")(x)


def without_norms(params, statistics):
    """The arrays of `domain` from a trained network: each normalisation becomes part of the layer before it."""
    arrays = {}
    for i in range(len(statistics)):
        norm, running = params[f"norm_{i}"], statistics[f"norm_{i}"]
        factor = norm["scale"] / jnp.sqrt(running["var"] + NORM_EPSILON)
        arrays[f"layer_{i}_kernel"] = params[f"layer_{i}"]["kernel"] * factor
        arrays[f"layer_{i}_bias"] = norm["bias"] - running["mean"] * factor
    for name in ("hidden", "logits"):
        arrays |= {f"{name}_{part}": params[name][part] for part in ("kernel", "bias")}
    return {name: np.asarray(array, np.float16) for name, array in arrays.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=AUGMENTATION)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder; those that ship are in fmd/evaluation/weights")
    args = parser.parse_args()
    out = args.out / f"{args.dataset}-1.npz"
    if out.exists():
        raise SystemExit(f"{out} exists; a version never changes, so give another --out")

    dataset = data.load(args.dataset)
    images, labels = jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels)
    steps = args.epochs * len(labels) // BATCH
    shift, mirrored, dropout = AUGMENTATION[args.dataset]
    model = Trainable(LAYERS[args.dataset], dropout)
    key = jax.random.key(args.seed)
    variables = model.init(key, jnp.zeros((1, *dataset.image_shape)), train=False)
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(steps, 3e-3, pct_start=0.2), weight_decay=0.02)

    @partial(jax.jit, donate_argnums=0, compiler_options=cpu_compiler_options())
    def train_step(state, rows, step):
        params, statistics, moments, average = state
        mirror_key, shift_key, dropout_key = jax.random.split(jax.random.fold_in(key, step), 3)
        mirror = jax.random.bernoulli(mirror_key, shape=(BATCH,)) & mirrored
        offset = jax.random.randint(shift_key, (BATCH, 2), -shift, shift + 1)
        x = mirror_and_move(to_unit(images[rows]), mirror, offset, margin=shift)

        def loss_of(params):
            logits, changed = model.apply(
                {"params": params, "batch_stats": statistics},
                x,
                train=True,
                mutable="batch_stats",
                rngs={"dropout": dropout_key},
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()
            return loss, changed["batch_stats"]

        (loss, statistics), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, moments = optimizer.update(gradient, moments, params)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update((params, statistics), average, 1 - AVERAGE)
        return (params, statistics, moments, average), loss

    params, statistics = variables["params"], variables["batch_stats"]
    state = (params, statistics, optimizer.init(params), jax.tree.map(jnp.copy, (params, statistics)))
    started = time.perf_counter()
    progress = tqdm(range(steps), mininterval=20)
    for step in progress:
        state, loss = train_step(state, batch_indices(args.seed, step, BATCH, len(labels)), step)
        if step % 100 == 0:
            progress.set_postfix_str(f"loss {float(loss):.4f}", refresh=False)
    arrays = without_norms(*state[-1])
    accuracy = {
        name: float(np.mean(domain.classify(arrays, split.images) == split.labels))
        for name, split in (("train", dataset.train), ("test", dataset.test))
    }
    with atomic_path(out) as temporary:
        np.savez(temporary, **arrays)
    facts = {"accuracy": accuracy, "epochs": args.epochs, "seed": args.seed, "sha256": digest(out, "sha256")}
    facts |= {"seconds": round(time.perf_counter() - started), "jax": jax.__version__, "bytes": out.stat().st_size}
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
