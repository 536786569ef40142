"""The moving average of the weights, with a short memory at first, so that short runs benefit too."""

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage(WeightAveraging):
    """Averages weights and buffers after every optimizer step; validation uses the average.

    The n-th update (from 1) keeps min(decay, (1 + n) / (10 + n)) of the average. In checkpoints `state_dict` is the
    average and `current_model_state` the raw weights. Sharded models are not supported.

    Args:
        decay: What is kept in the long run, in (0, 1).
    """

    def __init__(self, decay: float):
        super().__init__(multi_avg_fn=_Average(decay))


class _Average:
    def __init__(self, decay: float):
        self.decay = decay

    def __call__(self, averages: list[Tensor], values: list[Tensor], num_averaged: Tensor | int) -> None:
        updates = int(num_averaged)
        keep = min(self.decay, (1 + updates) / (10 + updates))
        get_ema_multi_avg_fn(keep)(averages, values, num_averaged)
