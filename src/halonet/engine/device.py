"""The device that a network runs on."""

import torch

from halonet.errors import UserError


def choose_device(name: str) -> torch.device:
    """Find a device by its name: "cpu", "cuda", "cuda:1", ...; "auto" takes an accelerator if there is one.

    Raises:
        UserError: The device cannot be used here.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def sum_dtype(device: torch.device) -> torch.dtype:
    """The widest dtype for sums on a device: float64, but float32 on Apple's GPUs."""
    return torch.float32 if device.type == "mps" else torch.float64
