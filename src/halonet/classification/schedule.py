"""The learning rate over a run: a linear warm-up, then half a cosine that does not end at zero."""

import math


def learning_rate_factor(step: int, warmup_steps: int, total_steps: int, final_fraction: float) -> float:
    """The learning rate of an optimizer step, as a fraction of the peak.

    The warm-up rises linearly and its last step has the peak rate. The cosine begins at the peak, and the last step of
    the run has exactly `final_fraction` (1/128 in the paper, whose large models otherwise overfit at the very end).

    Args:
        step: Counted from 0. Steps after the end use the final fraction.
        warmup_steps: May be 0.
        total_steps: Steps of the run, warm-up included.
        final_fraction: Where the cosine ends.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    cosine_steps = total_steps - 1 - warmup_steps
    progress = min(1.0, (step - warmup_steps) / cosine_steps) if cosine_steps > 0 else 1.0
    return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * progress)) / 2
