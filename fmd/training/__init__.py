"""Training: the step, the recipe that a config makes, the loop, and the callbacks that hang on it."""
