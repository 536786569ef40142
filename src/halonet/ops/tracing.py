"""What tracers need: functions that Dynamo must call instead of tracing them, and a refusal of TorchScript.

Dynamo of torch 2.11 cannot trace `torch.amp.is_autocast_available`, and always takes `torch.compiler.is_exporting` for
true (pytorch issue 176347, fixed in 2.12.1).
"""

from typing import NoReturn

import torch

from halonet.errors import UserError


@torch.compiler.assume_constant_result
def is_exporting() -> bool:
    """Whether `torch.export` is tracing."""
    return torch.compiler.is_exporting()


@torch.compiler.assume_constant_result
def is_autocast_available(device: str) -> bool:
    """Whether a type of device supports autocast."""
    return torch.amp.is_autocast_available(device)


def refuse_torchscript() -> NoReturn:
    """Refuse `torch.jit.script`, which calls a module's `__prepare_scriptable__` first.

    Raises:
        UserError: Always.
    """
    raise UserError(
        "torch.jit.script is deprecated and cannot compile these layers: use torch.export, torch.compile or "
        "torch.jit.trace"
    )
