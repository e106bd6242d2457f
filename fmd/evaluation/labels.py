"""The classes that are asked of a model before it is judged.

A distance between samples and real images also measures how often each class occurs. So samples are asked for as often
as the classes occur among the real images, unless all classes are wanted equally often.
"""

import numpy as np
from jaxtyping import Int32

FREQUENCIES = ("reference", "balanced")  # of the classes of samples


def choose_labels(
    count: int, num_classes: int, like: Int32[np.ndarray, " N"] | None = None
) -> Int32[np.ndarray, " {count}"]:
    """Labels int32 [count] with the class frequencies of `like`, or of all classes in turn.

    At each place stands the class that is furthest behind its share, the lowest of several. So every beginning has
    these frequencies, too, and a smaller request is the beginning of a larger one.

    Args:
        count: how many.
        num_classes: 0 for a model without classes, which is asked for label 0.
        like: labels in [0, num_classes) whose frequencies count; all classes in turn without it.
    """
    classes = max(num_classes, 1)
    shares = np.ones(classes, np.int64) if like is None else np.bincount(like, minlength=classes).astype(np.int64)
    total, asked = shares.sum(), np.zeros(classes, np.int64)
    labels = np.empty(count, np.int32)
    for place in range(count):
        labels[place] = np.argmax((place + 1) * shares - total * asked)
        asked[labels[place]] += 1
    return labels
