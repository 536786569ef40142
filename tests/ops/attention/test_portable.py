"""The form of the operator that is exported agrees with its specification."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from halonet.ops.attention import portable, reference
from halonet.ops.attention.geometry import make_geometry
from tests.ops.attention.sizes import SIZES, Size

pytestmark = pytest.mark.usefixtures("untyped")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
def test_it_gives_what_the_specification_says(size: Size) -> None:
    query, key, value, row_embedding, column_embedding = size.inputs(torch.float64)
    options = dict(size.options)
    scale = options.pop("scale", query.shape[-1] ** -0.5)
    geometry = make_geometry(*key.shape[1:3], **options)
    expected = reference.halo_attention(
        query, key, value, row_embedding, column_embedding, geometry=geometry, scale=scale
    )

    def flatten(tensor: Tensor) -> Tensor:
        return tensor.flatten(1, 3)

    tables = (None, None)
    if row_embedding is not None and column_embedding is not None:
        tables = portable.expand_tables(row_embedding, column_embedding, geometry)
    windows = portable.make_windows(geometry, size.heads, size.batch, query)
    result = portable.halo_attention(
        flatten(query * scale), flatten(key), flatten(value), *tables, windows=windows, border=geometry.border
    )
    assert_close(result.view(expected.shape), expected)
