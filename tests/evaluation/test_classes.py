"""Figures of classes, on logits and features whose answer is known."""

import numpy as np
import pytest

from fmd.evaluation.classes import accuracy, diversity, score


def test_accuracy_counts_by_the_class_that_was_asked():
    logits = np.eye(3)[[0, 0, 1, 2, 1]]
    asked = np.array([0, 1, 1, 2, 3])  # the last one is the null label of three classes
    found = accuracy(logits, asked)
    assert found["class_accuracy"] == 3 / 4
    assert found["accuracy_by_class"] == [1.0, 0.5, 1.0]
    assert found["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_accuracy_without_a_label():
    found = accuracy(np.eye(2), np.array([2, 2]))
    assert found["class_accuracy"] is None
    assert found["accuracy_by_class"] == [None, None]


def test_score_is_the_number_of_classes_that_are_surely_and_evenly_met():
    assert score(1000.0 * np.eye(5)[np.arange(20) % 5]) == pytest.approx(5)
    assert score(1000.0 * np.eye(5)[np.zeros(20, int)]) == pytest.approx(1)
    assert score(np.zeros((20, 5))) == pytest.approx(1)


def test_diversity_is_the_mean_squared_distance_of_pairs_of_a_class():
    x = np.random.default_rng(0).normal(size=(9, 4))
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    pairs = [[np.sum((x[i] - x[j]) ** 2) for i in range(4 * c, 4 * c + 4) for j in range(4 * c, i)] for c in (0, 1)]
    assert diversity(x, labels) == pytest.approx(np.mean([np.mean(p) for p in pairs]))
    assert diversity(x[-1:], labels[-1:]) is None
