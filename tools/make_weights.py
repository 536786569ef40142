"""Make the weights of a run into a file of the package: half precision, with the accuracy measured on that file.

What the demo page needs to tell strange pictures lies beside it, see `halonet.demo.familiarity`.

    python tools/make_weights.py runs/cifar10/minutes mini32.cifar10 --data.root DIR

writes src/halonet/models/weights/mini32.cifar10.safetensors. Choose the run by its validation images.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from halonet.classification.checkpoint import load_checkpoint
from halonet.classification.evaluation import evaluate
from halonet.classification.hub import FIGURES, RUN
from halonet.data.classification.sources import is_named
from halonet.demo.familiarity import calibrate
from halonet.engine.run import read_result
from halonet.engine.weights import read_weights, save_weights
from halonet.errors import UserError

FOLDER = Path(__file__).parents[1] / "src/halonet/models/weights"
MOST_BYTES = 2 * 10**6


def make_weights(run: Path, name: str, root: Path | None, folder: Path = FOLDER) -> Path:
    """Write the weights of a run, measured, into the package; returns the file.

    Raises:
        UserError: The run or its data cannot be read, or the file would be too large for the package.
    """
    network, information = load_checkpoint(run)
    if not is_named(information["data"]):
        raise UserError(
            f"{run} was trained on the folder {information['data']}: package weights of named data sets only"
        )
    result = read_result(run)
    half = {
        key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in network.state_dict().items()
    }
    information = information | {"root": None, "run": {key: result[key] for key in RUN}}
    with tempfile.TemporaryDirectory() as place:
        draft = Path(place) / "model.safetensors"
        save_weights(draft, half, information)
        if draft.stat().st_size > MOST_BYTES:
            size = draft.stat().st_size
            raise UserError(f"the weights of {run} take {size:,} bytes; the package takes at most {MOST_BYTES:,}")
        measured = evaluate(draft, root=root, device="cpu")
    figures = {key: measured[key] for key in FIGURES} | {"data": measured["variant"] or measured["data"]}
    path = folder / f"{name}.safetensors"
    save_weights(path, half, information | {"figures": figures})
    calibrate(path, root)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("name", help="ROW.TAG, such as mini32.cifar10")
    parser.add_argument("--data.root", dest="root", type=Path, metavar="DIR", help="the folder that the data lie in")
    options = parser.parse_args()
    torch.set_num_threads(2)
    try:
        path = make_weights(options.run, options.name, options.root)
    except UserError as error:
        print(f"make_weights: {error}", file=sys.stderr)
        return 2
    _, information, _ = read_weights(path)
    print(f"wrote {path}: {path.stat().st_size:,} bytes, {information['figures']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
