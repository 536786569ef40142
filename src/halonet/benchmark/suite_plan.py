"""What `halonet benchmark all` measures: names, batches and image sizes."""

import dataclasses

from halonet.benchmark import operator
from halonet.benchmark.sizes import FAMILY, SIZES


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured: names of sizes and networks (ours first), batches in images, image sides in pixels.

    `compiled_peers`, `compiled` and `accelerated` may be empty, which leaves their sections out.
    """

    operator_batch: int = 256
    repeats: int = 15  # networks take half
    stages: tuple[str, ...] = ("h1/stage1", "h1/stage2", "h1/stage3", "h1/stage4")
    strided: tuple[str, ...] = ("h1/stage2-strided", "h1/stage3-strided", "h1/stage4-strided")
    family: tuple[str, ...] = tuple(
        name
        for row in sorted(FAMILY, key=["h7", "h4", "h6", "h5", "h3", "h0", "h2", "h1"].index)
        for name in SIZES
        if name.startswith(f"{row}/") and row != "h1"
    )
    peers: tuple[str, ...] = ("composite", "timm", "natten")
    compiled_peers: tuple[str, ...] = ("flex_attention",)  # compilation takes minutes
    networks: tuple[str, ...] = ("h1", "timm/halonet_h1", "timm/efficientnet_b1", "timm/resnet50")
    inference_batch: int = 256
    training_batch: int = 128
    memory_batch: int = 64
    image_size: int = 256
    compiled: tuple[str, ...] = ("h1", "timm/halonet_h1", "timm/efficientnet_b1")
    accelerated: tuple[str, ...] = ("timm/halonet_h1", "timm/halonet50ts")
    # Our rows for ImageNet-21k, and the networks that the paper names beside them.
    large: tuple[str, ...] = (
        "h4_21k",
        "h4_21k_patch",
        "h4_21k_conv12",
        "timm/vit_large_patch16_384",
        "timm/resnetv2_152x4_bit",
    )
    large_batch: int = 32
    # Appendix F fine-tunes at larger images with larger blocks, so that the last stage stays one block.
    large_forms: tuple[tuple[int, dict[str, object]], ...] = (
        (384, {"block_size": 12, "halo_size": 2}),
        (512, {"block_size": 16, "halo_size": 1}),
    )
    growth: tuple[operator.Case, ...] = tuple(operator.scaling_cases("image", batch=1))


FULL = Plan()
# Without the compiler and timm's halo networks at 256 px, which take a CPU longer than a moment.
SMOKE = Plan(
    operator_batch=1,
    repeats=2,
    stages=("h0/stage4",),
    strided=("h0/stage4-strided",),
    family=("h5/stage4",),
    peers=("composite", "timm"),
    compiled_peers=(),
    networks=("tiny28", "timm/test_resnet"),
    inference_batch=2,
    training_batch=2,
    memory_batch=2,
    image_size=28,
    compiled=(),
    accelerated=(),
    large=("tiny28", "timm/test_resnet"),
    large_batch=1,
    large_forms=((28, {"block_size": 14, "halo_size": 2}),),
    growth=(dataclasses.replace(FULL.growth[0], batch=1),),
)
