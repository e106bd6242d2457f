"""Taking a model away: one folder that needs nothing of the run it came from."""
