"""The family beside the paper, as `halonet info` prints it."""

from typing import Any

import torch

from halonet.errors import UserError, unknown_name
from halonet.models.config import HALONETS
from halonet.models.halonet import HaloNet
from halonet.models.macs import count_macs

# Millions of parameters as the paper prints them: Tables A2, 3 and 4, section 4.5.
PAPER_PARAMETERS = {
    "h0": 5.5, "h1": 8.1, "h2": 9.4, "h3": 12.3, "h4": 19.1, "h5": 30.7, "h6": 43.4, "h7": 67.0,
    "halonet50": 18.0, "resnet50_twin": 25.5, "h7_c1": 67.0, "h7_c12": 67.0, "h7_c123": 67.0,
    "h4_21k": 85.0, "h4_21k_patch": 85.0, "h4_21k_conv12": 87.0,
}  # fmt: skip


def describe_model(name: str, image_size: int | None = None) -> dict[str, Any]:
    """Count one row of `halonet.HALONETS`, with 1,000 classes, at its own image size or another.

    Returns:
        `name`, `image_size`, `layers`, `parameters`, `paper_parameters` (or None), `macs`, `attention_macs` (both as
        Table 1 counts, padding included), and `visible` (the share of the counted pairs that lie in the image, or
        None where there is no attention).

    Raises:
        UserError: If there is no such row.
    """
    if name not in HALONETS:
        raise UserError(unknown_name("model", name, HALONETS))
    config = HALONETS[name]
    with torch.device("meta"):
        model = HaloNet(config)
    side = image_size or config.image_size
    macs = count_macs(model, side)
    paper = PAPER_PARAMETERS.get(name)
    return {
        "name": name,
        "image_size": side,
        "layers": config.layers,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "paper_parameters": None if paper is None else round(paper * 1e6),
        "macs": macs.total,
        "attention_macs": macs.attention,
        "visible": macs.visible_pairs / macs.pairs if macs.pairs else None,
    }
