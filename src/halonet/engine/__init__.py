"""A training run of any task: data in a fixed order, steps, checkpoints, and resuming from them."""
