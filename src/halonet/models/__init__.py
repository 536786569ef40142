"""Models: the paper's tables, the network, and how they are made by name."""

from halonet.models.acceleration import (
    accelerate as accelerate,
    accelerated_layers as accelerated_layers,
    restore as restore,
)
from halonet.models.config import HALONETS as HALONETS, HaloNetConfig as HaloNetConfig
from halonet.models.fuse import fuse_batch_norm as fuse_batch_norm
from halonet.models.halonet import HaloNet as HaloNet
from halonet.models.macs import Macs as Macs, count_macs as count_macs
from halonet.models.registry import configure as configure, create_model as create_model
from halonet.models.report import describe_model as describe_model
