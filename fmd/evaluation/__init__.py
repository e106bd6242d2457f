"""Judging a model: the validation loss."""
