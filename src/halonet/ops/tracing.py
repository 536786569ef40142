"""Functions of PyTorch whose results are constants of a trace.

Dynamo of torch 2.11 cannot trace `torch.amp.is_autocast_available`, and always takes `torch.compiler.is_exporting` for
true (pytorch issue 176347, fixed in 2.12.1). Called at trace time but outside the trace, both are right.
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
