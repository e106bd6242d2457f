"""Saving and restoring runs with Orbax, and reading weights from a run, one step of it, or an export."""
