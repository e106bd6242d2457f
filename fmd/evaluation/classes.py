"""Figures of a classifier on samples: right classes, the Inception Score, diversity within a class."""

import numpy as np
from jaxtyping import Float, Int

from fmd.blocks import Plain

Labels = Int[np.ndarray, " N"]


def accuracy(logits: Float[np.ndarray, "N K"], asked: Labels) -> Plain:
    """Share of samples classified as the class asked for, overall and per class.

    Returns:
        class_accuracy, accuracy_by_class [K], confusion [K, K] counts (row: asked, column: seen). Samples of the null
        label, or of classes that the classifier does not know, are left out; None without any.
    """
    classes = logits.shape[1]
    known = (asked >= 0) & (asked < classes)
    seen, asked = logits.argmax(axis=1)[known], asked[known]
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (asked, seen), 1)
    rows, right = confusion.sum(axis=1), confusion.diagonal()
    return {
        "class_accuracy": float(right.sum() / rows.sum()) if rows.sum() else None,
        "accuracy_by_class": [float(r / n) if n else None for r, n in zip(right, rows, strict=True)],
        "confusion": confusion.tolist(),
    }


def score(logits: Float[np.ndarray, "N K"]) -> float:
    """The formula of the Inception Score: exp of the mean KL divergence of p(class | image) from p(class).

    arXiv 1606.03498. Between 1 and the number of classes. It knows nothing of the real images: a sign of life, no
    measure.
    """
    z = np.asarray(logits, np.float64)
    log_p = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    log_mean = np.logaddexp.reduce(log_p, axis=0, keepdims=True) - np.log(len(z))
    return float(np.exp(np.mean(np.sum(np.exp(log_p) * (log_p - log_mean), axis=1))))


def diversity(features: Float[np.ndarray, "N D"], labels: Labels) -> float | None:
    """Mean squared distance between two samples of the same class, averaged over classes with two or more."""
    spreads = []
    for label in np.unique(labels):
        members = np.asarray(features[labels == label], np.float64)
        if len(members) > 1:  # the mean over pairs is twice the variance
            spreads.append(2.0 * members.var(axis=0, ddof=1).sum())
    return float(np.mean(spreads)) if spreads else None
