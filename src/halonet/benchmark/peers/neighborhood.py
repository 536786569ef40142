"""NATTEN's strided neighborhood attention: a window of b + 2h pixels for each group of b by b queries.

It has no position tables, and near the border it moves windows inward instead of cutting them; so it computes what our
operator computes without tables, in blocks whose window lies in the image, and is compared there.
"""

import importlib
import importlib.util
import warnings

from torch import Tensor

from halonet.benchmark.peers.implementation import Implementation, Inputs, Prepared
from halonet.benchmark.peers.ours import attend
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size


def _unsupported_reason(size: Size, settings: Settings, training: bool) -> str | None:
    if importlib.util.find_spec("natten") is None:
        return "it is not installed: pip install natten"
    if training and settings.device == "cpu":
        return "it has no backward on a CPU"
    if size.window > min(size.rows, size.columns):
        return f"its window of {size.window} pixels must fit into the map"
    if size.stride > 1 or size.centered:
        return "its queries and keys share one grid, and groups of queries one window"
    if size.query_channels != size.value_channels:
        return "its CPU path wants queries and values equally wide"
    if _interior(size) is None:
        return "no block's window lies in the image, and elsewhere it computes something else"
    return None


def _interior(size: Size) -> tuple[slice, slice] | None:
    """Rows and columns of the blocks whose windows lie in the image, or None if there are none."""
    margin = -(-size.halo // size.block) * size.block
    ends = [(length - size.halo) // size.block * size.block for length in (size.rows, size.columns)]
    return None if min(ends) <= margin else (slice(margin, ends[0]), slice(margin, ends[1]))


def _prepare(inputs: Inputs) -> Prepared:
    size, interior = inputs.size, _interior(inputs.size)
    assert interior is not None
    neighborhood_attention = importlib.import_module("natten").na2d
    trains = inputs.query.device.type != "cpu"  # on a CPU it refuses what requires gradients, needed or not
    query, key, value = (each.detach().requires_grad_(trains) for each in (inputs.query, inputs.key, inputs.value))

    def run() -> Tensor:
        with warnings.catch_warnings():  # on a CPU it warns that its own backend is slow
            warnings.simplefilter("ignore")
            return neighborhood_attention(query, key, value, kernel_size=size.window, stride=size.block)

    def compare() -> tuple[Tensor, Tensor]:
        return run()[:, *interior], attend(inputs, tables=())[:, *interior]

    return Prepared(run, [query, key, value], compare)


NATTEN = Implementation(_unsupported_reason, _prepare)
