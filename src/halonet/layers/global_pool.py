"""Average pooling over the whole map."""

from jaxtyping import Float
from torch import Tensor, nn

from halonet.errors import UserError


class GlobalPool(nn.Module):
    """Average the pixels of a feature map, or leave it as it is.

    The mean is taken as a matrix product, so that its gradient lies in memory as the channels_last map does: the
    gradient of `Tensor.mean` is a broadcast that sends the last stage's backward pass to slow NCHW kernels.

    Args:
        pool_type: "avg", or "" to return the map; the name is timm's.

    Raises:
        UserError: If `pool_type` is neither.
    """

    def __init__(self, pool_type: str = "avg") -> None:
        super().__init__()
        if pool_type not in ("avg", ""):
            raise UserError(f"global_pool is {pool_type!r}, but must be 'avg', or '' for none")
        self.pool_type = pool_type

    def forward(self, x: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch channels *rest"]:
        """Pool to [batch, channels], or return the map."""
        if not self.pool_type:
            return x
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        weights = pixels.new_full((1, pixels.shape[1]), 1 / pixels.shape[1])
        return (weights @ pixels).squeeze(1)

    def extra_repr(self) -> str:
        """Show the kind of pooling."""
        return repr(self.pool_type)
