"""Sizes and settings that take no time."""

from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size

SETTINGS = Settings(batch=2, repeats=2, threads=1)
# Three blocks a side: one in the middle sees no border.
SIZE = Size(rows=12, columns=12, heads=2, query_channels=16, value_channels=16, block=4, halo=2)
