"""Arguments that do not fit are refused, and the message names the value and the rule."""

from typing import Any

import numpy as np
import pytest
import torch

from halonet.errors import UserError
from tests.ops.attention.small_calls import attend, mentions, weights, zeros

pytestmark = pytest.mark.usefixtures("untyped")


def test_the_unchanged_arguments_are_valid() -> None:
    assert attend().shape == (1, 6, 5, 2, 3)
    assert weights()[0].shape == (1, 2, 2, 6, 5)


HALF = torch.float16
DOUBLE = torch.float64
SHAPES = {
    "key of another batch": ({"key": zeros(3, 6, 5, 2, 4)}, ("key", 3)),
    "value of another batch": ({"value": zeros(3, 6, 5, 2, 3)}, ("value", 3)),
    "query of another batch": ({"query": zeros(3, 6, 5, 2, 4)}, ("query", 3)),
    "batch is not broadcast": ({"key": zeros(2, 6, 5, 2, 4), "value": zeros(2, 6, 5, 2, 3)}, ("query", 1, 2)),
    "value of other rows": ({"value": zeros(1, 7, 5, 2, 3)}, ("value", 7, 6)),
    "value of other columns": ({"value": zeros(1, 6, 9, 2, 3)}, ("value", 9, 5)),
    "key of other heads": ({"key": zeros(1, 6, 5, 3, 4)}, ("heads", 3, 2)),
    "value of other heads": ({"value": zeros(1, 6, 5, 8, 3)}, ("value", "heads", 8, 2)),
    "heads are not broadcast": ({"key": zeros(1, 6, 5, 1, 4), "value": zeros(1, 6, 5, 1, 3)}, ("heads", 1, 2)),
    "key of another width": ({"key": zeros(1, 6, 5, 2, 8)}, ("key", 8, 4)),
    "query rows": ({"query": zeros(1, 7, 5, 2, 4)}, ("query", 7, 6, "stride")),
    "query columns": ({"query": zeros(1, 6, 4, 2, 4)}, ("query", 4, 5, "stride")),
    "query not subsampled": ({"stride": 2}, ("query", "stride", 3, 6)),
    "query rounded down": ({"stride": 2, "query": zeros(1, 3, 2, 2, 4)}, ("query", "stride", 2, 3)),
    "no rows": ({"query": zeros(1, 0, 5, 2, 4), "key": zeros(1, 0, 5, 2, 4), "value": zeros(1, 0, 5, 2, 3)}, (0, 5)),
    "no columns": ({"query": zeros(1, 6, 0, 2, 4), "key": zeros(1, 6, 0, 2, 4), "value": zeros(1, 6, 0, 2, 3)}, (0, 6)),
    "no heads": (
        {"query": zeros(1, 6, 5, 0, 4), "key": zeros(1, 6, 5, 0, 4), "value": zeros(1, 6, 5, 0, 3)},
        ("heads", 0),
    ),
    "no channels": ({"query": zeros(1, 6, 5, 2, 0), "key": zeros(1, 6, 5, 2, 0)}, ("d_qk", 0)),
    "query without heads axis": ({"query": zeros(1, 6, 5, 4)}, ("query", "heads")),
    "key without batch axis": ({"key": zeros(6, 5, 2, 4)}, ("key", "batch")),
    "value of one axis too many": ({"value": zeros(1, 1, 6, 5, 2, 3)}, ("value",)),
}  # fmt: skip
DTYPES_AND_DEVICES = {
    "key of another dtype": ({"key": zeros(1, 6, 5, 2, 4, dtype=DOUBLE)}, ("key", "float64", "float32")),
    "value of another dtype": ({"value": zeros(1, 6, 5, 2, 3, dtype=HALF)}, ("value", "float16", "float32")),
    "integer tensors": (
        {
            "query": zeros(1, 6, 5, 2, 4, dtype=torch.int64),
            "key": zeros(1, 6, 5, 2, 4, dtype=torch.int64),
            "value": zeros(1, 6, 5, 2, 3, dtype=torch.int64),
        },
        ("int64", "float"),
    ),
    "lower row dtype": ({"row_embedding": zeros(5, 2, dtype=HALF)}, ("row_embedding", "float16")),
    "higher column dtype": ({"column_embedding": zeros(5, 2, dtype=DOUBLE)}, ("column_embedding", "float64")),
    "key on another device": ({"key": zeros(1, 6, 5, 2, 4, device="meta")}, ("meta", "cpu", "key")),
    "value on another device": ({"value": zeros(1, 6, 5, 2, 3, device="meta")}, ("meta", "cpu", "value")),
    "table on another device": ({"row_embedding": zeros(5, 2, device="meta")}, ("meta", "cpu", "row_embedding")),
}  # fmt: skip
GEOMETRY = {
    "block zero": ({"block_size": 0}, ("block_size", 0)),
    "block negative": ({"block_size": (2, -3)}, ("block_size", -3)),
    "halo negative": ({"halo_size": -1}, ("halo_size", -1)),
    "halo negative on one axis": ({"halo_size": (-2, 1)}, ("halo_size", -2)),
    "stride zero": ({"stride": 0}, ("stride", 0)),
    "stride negative": ({"stride": (1, -1)}, ("stride", -1)),
    "block of three numbers": ({"block_size": (2, 2, 2)}, ("block_size", "(2, 2, 2)")),
    "block not a whole number": ({"block_size": 2.5}, ("block_size", "2.5")),
    "halo a word": ({"halo_size": "one"}, ("halo_size", "one")),
    "offset_stride where the stride does not divide the block": (
        {
            "query": zeros(1, 2, 2, 2, 4),
            "stride": 3,
            "block_size": 4,
            "row_embedding": None,
            "column_embedding": None,
            "offset_stride": 1,
        },
        ("offset_stride", 1, 3, 4),
    ),
    "offset_stride where it does not divide on one axis": (
        {
            "query": zeros(1, 3, 3, 2, 4),
            "stride": 2,
            "block_size": (2, 3),
            "row_embedding": None,
            "column_embedding": None,
            "offset_stride": 1,
        },
        ("offset_stride", 1, 2, 3),
    ),
    "offset_stride zero": ({"offset_stride": 0}, ("offset_stride", 0)),
    "offset_stride that leaves the table": ({"offset_stride": 2}, ("offset_stride", 2)),
    "unknown border": ({"border": "reflect"}, ("border", "reflect", "mask", "zeros")),
    "misspelt border": ({"border": "zero"}, ("border", "'zero'", "zeros")),
    "border no word": ({"border": ["zeros"]}, ("border", "['zeros']", "mask")),
    "border an array of words": ({"border": np.array(["mask", "mask"])}, ("border", "array(['mask'", "zeros")),
    "block of a truth": ({"block_size": (2, True)}, ("block_size[1]", "True", "whole number")),
    "halo a whole float": ({"halo_size": 1.0}, ("halo_size", "1.0", "whole number")),
    "stride no number": ({"stride": None}, ("stride", "None", "whole number")),
    "stride a tensor": ({"stride": torch.tensor([1, 1])}, ("stride", "tensor([1, 1])", "whole number")),
    "offset_stride a word": ({"offset_stride": "1"}, ("offset_stride", "'1'", "whole number")),
    "centered a word": ({"centered": "no"}, ("centered", "'no'", "True or False")),
    "centered a number": ({"centered": 1}, ("centered", 1, "True or False")),
    "centered nothing": ({"centered": None}, ("centered", "None", "True or False")),
    "scale not a number": ({"scale": float("nan")}, ("scale", "nan", "finite")),
    "scale infinite": ({"scale": -float("inf")}, ("scale", "-inf", "finite")),
    "scale over the floats": ({"scale": 10**400}, ("scale", "1000", "finite")),
    "scale a word": ({"scale": "1"}, ("scale", "'1'", "number")),
    "scale a truth": ({"scale": True}, ("scale", "True", "number")),
    "scale complex": ({"scale": 1j}, ("scale", "1j", "number")),
    "scale a parameter": ({"scale": torch.nn.Parameter(torch.ones(()))}, ("scale", "tensor(1.", "number")),
}  # fmt: skip
TABLES = {
    "row table alone": ({"column_embedding": None}, ("column_embedding", "table")),
    "column table alone": ({"row_embedding": None}, ("row_embedding", "table")),
    "row table too long": ({"row_embedding": zeros(7, 2)}, ("row_embedding", 7, 5)),
    "column table too short": ({"column_embedding": zeros(4, 2)}, ("column_embedding", 4, 5)),
    "timm's table uncut": ({"column_embedding": zeros(7, 2)}, ("column_embedding", 7, 5)),
    "tables of the other axis": (
        {"block_size": (2, 3), "row_embedding": zeros(7, 2), "column_embedding": zeros(5, 2)},
        ("row_embedding", 7, 5),
    ),
    "widths that sum to neither": ({"row_embedding": zeros(5, 3)}, (3, 2, 4)),
    "one table full": ({"row_embedding": zeros(5, 4)}, (4, 2)),
    "tables too wide": ({"row_embedding": zeros(5, 8), "column_embedding": zeros(5, 8)}, (8, 4)),
    "table of one axis": ({"row_embedding": zeros(5)}, ("row_embedding",)),
    "table no tensor": ({"row_embedding": [[0.0]]}, ("row_embedding", "list", "Tensor")),
}  # fmt: skip
NO_TENSORS = {
    "query no tensor": ({"query": np.zeros((1, 6, 5, 2, 4))}, ("query", "ndarray", "Tensor")),
    "key nothing": ({"key": None}, ("key", "NoneType", "Tensor")),
    "value a list": ({"value": [1.0]}, ("value", "list", "Tensor")),
}
REFUSED = NO_TENSORS | SHAPES | DTYPES_AND_DEVICES | GEOMETRY | TABLES


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_the_operator_refuses_wrong_arguments(changes: dict[str, Any], words: tuple[object, ...]) -> None:
    with pytest.raises(UserError, match=mentions(*words)) as caught:
        attend(**changes)
    assert len(str(caught.value).splitlines()) == 1


WITHOUT_VALUE = {name: case for name, case in REFUSED.items() if "value" not in case[0]}


@pytest.mark.parametrize(("changes", "words"), WITHOUT_VALUE.values(), ids=WITHOUT_VALUE.keys())
def test_attention_weights_refuse_wrong_arguments(changes: dict[str, Any], words: tuple[object, ...]) -> None:
    with pytest.raises(UserError, match=mentions(*words)):
        weights(**changes)


def test_numbers_of_numpy_are_numbers() -> None:
    numbers = {"block_size": np.int64(2), "halo_size": (np.int32(1), np.uint8(1)), "scale": np.float32(0.5)}
    assert torch.equal(attend(**numbers), attend(scale=0.5))


POSITIONS = {
    "row past the end": ([[6, 0]], ("positions", 6)),
    "column past the end": ([[0, 0], [2, 5]], ("positions", 5)),
    "negative row": ([[-1, 0]], ("positions", -1)),
    "three numbers": ([[0, 0, 0]], ("positions", 3)),
    "a bare pair": ([0, 0], ("positions",)),
    "not whole numbers": ([[0.5, 0.0]], ("positions", "float")),
    "truths": ([[True, False]], ("positions", "bool")),
}


@pytest.mark.parametrize(("positions", "words"), POSITIONS.values(), ids=POSITIONS.keys())
def test_positions_off_the_query_grid_are_refused(positions: list, words: tuple[object, ...]) -> None:
    with pytest.raises(UserError, match=mentions(*words)):
        weights(positions=torch.tensor(positions))


def test_positions_must_be_a_tensor() -> None:
    with pytest.raises(UserError, match=mentions("positions", "list", "Tensor")):
        weights(positions=[[0, 0]])


def test_positions_count_on_the_query_grid_not_on_the_image() -> None:
    with pytest.raises(UserError, match=mentions("positions", 3)):
        weights(query=zeros(1, 3, 3, 2, 4), stride=2, positions=torch.tensor([[3, 0]]))
