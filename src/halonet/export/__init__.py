"""Networks in files that other programs run: ONNX, PyTorch's exported programs, compiled ones."""

from halonet.export.formats import FORMATS as FORMATS
from halonet.export.network import Exported as Exported, export_network as export_network
from halonet.export.portable import make_portable as make_portable
from halonet.export.program import Bounds as Bounds, trace as trace
