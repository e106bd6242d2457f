"""Training: the pure step (`step`), what it minimises (`losses`), and the loop around it (`trainer`, `callbacks`)."""
