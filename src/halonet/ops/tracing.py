"""Functions of PyTorch that Dynamo must call at trace time instead of tracing them.

Dynamo of torch 2.11 cannot trace `torch.amp.is_autocast_available`, and always takes `torch.compiler.is_exporting` for
true (pytorch issue 176347, fixed in 2.12.1).
"""

import torch


@torch.compiler.assume_constant_result
def is_exporting() -> bool:
    """Whether `torch.export` is tracing."""
    return torch.compiler.is_exporting()


@torch.compiler.assume_constant_result
def is_autocast_available(device: str) -> bool:
    """Whether a type of device supports autocast."""
    return torch.amp.is_autocast_available(device)
