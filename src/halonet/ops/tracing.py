"""Questions to PyTorch whose answers are constants of a trace.

Dynamo of torch 2.11 cannot trace `torch.amp.is_autocast_available`, and takes `torch.compiler.is_exporting` for true
always (pytorch issue 176347, mended in 2.12.1). Asked while it traces, outside of the trace, both answer rightly.
"""

import torch


@torch.compiler.assume_constant_result
def is_exporting() -> bool:
    """Whether `torch.export` is tracing."""
    return torch.compiler.is_exporting()


@torch.compiler.assume_constant_result
def is_autocast_available(device: str) -> bool:
    """Whether a type of device knows autocast."""
    return torch.amp.is_autocast_available(device)
