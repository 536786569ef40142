"""Halo attention: the public functions of `api`."""

from halonet.ops.attention.api import (
    attention_weights as attention_weights,
    backend_names as backend_names,
    describe_backends as describe_backends,
    halo_attention as halo_attention,
    select_backend as select_backend,
    use_backend as use_backend,
)
