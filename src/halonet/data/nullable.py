"""The type of a recipe's value that the file may leave null because it follows from the data."""

from typing import TYPE_CHECKING, Annotated, Optional, TypeVar

ValueT = TypeVar("ValueT")

if TYPE_CHECKING:
    # Every reader but `halonet.classification.from_data`, which fills such values in, comes after it and finds a value.
    OrNull = Annotated[ValueT, "or null, until it is filled in"]
else:
    OrNull = Optional
