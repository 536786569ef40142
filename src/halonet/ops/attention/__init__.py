"""Halo attention: the public functions, and the list of backends."""

from halonet.ops.attention.backends import (
    backend_names as backend_names,
    describe_backends as describe_backends,
    select_backend as select_backend,
    use_backend as use_backend,
)
from halonet.ops.attention.calls import (
    attention_weights as attention_weights,
    halo_attention as halo_attention,
)
