"""Training from pairs of slices."""
