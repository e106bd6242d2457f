"""Judging a model: distances between samples and real images, classes, copies, bits per dimension, validation loss."""
