"""The type of recipe values that may be null until they are derived from the data."""

from typing import TYPE_CHECKING, Annotated, Optional, TypeVar

ValueT = TypeVar("ValueT")

if TYPE_CHECKING:
    # `halonet.classification.from_data` fills such values in before any other code reads them.
    OrNull = Annotated[ValueT, "or null, until it is filled in"]
else:
    OrNull = Optional
