"""Write the tables of docs/models.md from `halonet.HALONETS`: every row beside the paper's columns.

    python tools/make_model_table.py            # rewrites what stands between the markers in docs/models.md
    python tools/make_model_table.py --check    # says whether it is up to date, and changes nothing

Parameters and multiply-adds are counted on models without memory, for one image and 1,000 classes.
"""

import dataclasses
import sys
from pathlib import Path

import torch
from pages import ROOT, markdown_table, replaced, write_pages

from halonet import HALONETS, HaloNet, HaloNetConfig
from halonet.models import count_macs
from halonet.models.report import PAPER_PARAMETERS

PAGE = ROOT / "docs" / "models.md"
BEGIN = "<!-- tables: written by tools/make_model_table.py -->"
END = "<!-- end of tables -->"

# Title, what the rows have in common, their names.
GROUPS = (
    (
        "HaloNet-50 and its twin (section 4.2)",
        "ResNet-50's allocation. Label smoothing and RandAugment are the recipe's; "
        "SiLU and squeeze-and-excitation are overrides.",
        ("halonet50", "resnet50_twin"),
    ),
    (
        "H7 with convolutions (Table 4)",
        "3x3 convolutions and squeeze-and-excitation in the first stages of H7.",
        ("h7_c1", "h7_c12", "h7_c123"),
    ),
    (
        "ImageNet-21k (section 4.5)",
        "H4 at twice the width, counted with 1,000 classes.",
        ("h4_21k", "h4_21k_patch", "h4_21k_conv12"),
    ),
    (
        "Detection backbones (section 4.6)",
        "ResNets with squeeze-and-excitation in the convolution blocks; the `halo` rows have local attention in the "
        "last stage. The paper prints no sizes, and no number of heads: 8 is ours.",
        ("r50se", "r50se_halo_b8", "r50se_halo_b32", "r101se", "r101se_halo_b8"),
    ),
    (
        "Small images (ours, not of the paper)",
        "For images of 28 to 64 pixels.",
        ("tiny28", "micro32", "mini32", "small32", "small64"),
    ),
)
FAMILY = ("h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7")


def make_tables(macs: bool = True) -> str:
    """Write all tables as Markdown; `macs` counts multiply-adds, which takes most of the time."""
    header = ["model", "b", "h", "r_v", "r_b", "layers", "l_3", "s", "d_f", "parameters, M", "paper, M", "MACs, G"]
    rows = [family_row(name, HALONETS[name].image_size, macs) for name in FAMILY]
    rows.append(family_row("h7", 640, macs))
    parts = ["## H0 to H7 (Table A2)\n", markdown_table(header, rows, words=1)]
    for title, text, names in GROUPS:
        header = [
            "model",
            "s",
            "differs from the defaults of `HaloNetConfig` in",
            "parameters, M",
            "paper, M",
            "MACs, G",
        ]
        parts += [
            f"\n## {title}\n\n{text}\n",
            markdown_table(header, [study_row(name, macs) for name in names], words=(0, 2)),
        ]
    return "\n".join(parts)


def family_row(name: str, image_size: int, macs: bool) -> list[str]:
    """One row of the paper's Table A2."""
    c = HALONETS[name]
    numbers = (c.block_size, c.halo_size, c.value_ratio, c.bottleneck_ratio, c.layers, c.depths[2], image_size)
    cells = [f"{number:g}" for number in numbers]
    return [f"`{name}`", *cells, str(c.final_width or "-"), *counts(name, image_size, macs)]


def study_row(name: str, macs: bool) -> list[str]:
    """One row of the other tables."""
    config = HALONETS[name]
    return [f"`{name}`", str(config.image_size), differences(config), *counts(name, config.image_size, macs)]


def differences(config: HaloNetConfig) -> str:
    """The fields that are not at their defaults."""
    changed = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name != "image_size" and value != field.default:
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
            changed.append(f"`{field.name}` {shown}")
    return "; ".join(changed)


def counts(name: str, image_size: int, macs: bool) -> list[str]:
    """Parameters, the paper's, and multiply-adds."""
    with torch.device("meta"):
        model = HaloNet(HALONETS[name])
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    counted = f"{count_macs(model, image_size).total / 1e9:.2f}" if macs else ""
    paper = PAPER_PARAMETERS.get(name)
    return [f"{millions:.1f}", "-" if paper is None else f"{paper:g}", counted]


def make_pages() -> dict[Path, str]:
    return {PAGE: replaced(PAGE, BEGIN, END, make_tables().strip("\n"))}


if __name__ == "__main__":
    sys.exit(write_pages(__doc__, make_pages))
