"""From slices with labels and a few masks to a model."""
