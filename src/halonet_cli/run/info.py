"""`halonet info`."""

import argparse

import torch

import halonet
from halonet.models import describe_model
from halonet.ops.attention import describe_backends
from halonet.rules import Side, check_arguments
from halonet_cli.console import print_json, print_table


def run_info(options: argparse.Namespace) -> None:
    """Print the family beside the paper, and the backends of this machine."""
    check_arguments(image_size=(options.image_size, Side | None))
    models = [describe_model(name, options.image_size) for name in options.models or halonet.HALONETS]
    backends = describe_backends()
    versions = {"halonet": halonet.__version__, "torch": torch.__version__}
    if options.json:
        print_json({"versions": versions, "backends": backends, "models": models})
        return
    print_table(
        ["model", "px", "layers", "M params", "paper", "G MACs", "attention", "in image"],
        [
            [
                row["name"],
                str(row["image_size"]),
                str(row["layers"]),
                f"{row['parameters'] / 1e6:.1f}",
                "" if row["paper_parameters"] is None else f"{row['paper_parameters'] / 1e6:.1f}",
                f"{row['macs'] / 1e9:.2f}",
                f"{row['attention_macs'] / 1e9:.2f}",
                "" if row["visible"] is None else f"{100 * row['visible']:.0f} %",
            ]
            for row in models
        ],
    )
    print(
        "\nM params with 1,000 classes; the paper's column for H3 does not follow from its own table.\n"
        "MACs count (b + 2h)^2 keys for each query, padding included (Table 1); `in image` is the share inside.\n"
    )
    print_table(["backend", "auto takes it on", "what it is"], [list(row.values()) for row in backends])
    print("\n" + ", ".join(f"{name} {version}" for name, version in versions.items()))
