"""`halonet detect export`."""

import argparse
from pathlib import Path
from typing import Any

from halonet_cli.files import check_checkpoint
from halonet_cli.parser import add_command


def add(commands: Any) -> None:
    """Add the export of a detector to the commands of `halonet detect`."""
    export = add_command(
        commands,
        "export",
        run_detector_export,
        "write a detector as ONNX, for images of any size",
        check=check_checkpoint,
    )
    export.add_argument("checkpoint", help="a run folder, a model.safetensors or a .ckpt")
    export.add_argument("file", type=Path, help="the file to write, NAME.onnx")
    export.add_argument("--skip-check", action="store_true", help="do not compare it with PyTorch at other sizes")


def run_detector_export(options: argparse.Namespace) -> None:
    """Export, check, and print what was written."""
    from halonet.detection.checkpoint import load_detector
    from halonet.detection.export.file import export_detector
    from halonet.engine.files import check_output_file

    check_output_file(options.file)
    detector, information = load_detector(options.checkpoint)
    path = export_detector(
        detector, options.file, class_names=information["class_names"], verify=not options.skip_check
    )
    checked = "not compared" if options.skip_check else "gives what PyTorch gives at three other sizes"
    print(f"written to {path}: {path.stat().st_size / 2**20:.1f} MiB, {checked}")
