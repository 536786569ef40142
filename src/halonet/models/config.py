"""The paper's tables: one row per model, one field per column."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from halonet.complaints import Complaint, RuleError, must_be
from halonet.layers.bottleneck import ACTIVATIONS
from halonet.layers.halo_attention import EMBEDDINGS, POSITIONS
from halonet.ops.attention.geometry import BORDERS
from halonet.rules import Channels, Side, check_fields, length, one_of, within


class Stem(NamedTuple):
    """A convolution, and max pooling if `reduction`, the stem's whole stride, is more than `stride`."""

    kernel: int
    stride: int
    reduction: int


STEMS = {
    "conv7x7": Stem(7, 2, 4),
    "patch4x4": Stem(4, 4, 4),
    # Ours, for small images.
    "conv3x3": Stem(3, 1, 1),
    "conv3x3_stride2": Stem(3, 2, 2),
    "patch2x2": Stem(2, 2, 2),
}
DOWNSAMPLINGS = ("attention", "pool")

# The paper's largest network has 35 blocks in 4 stages, 512 channels in a stage's width, and blocks of 14 pixels.
MOST_STAGES = 8
MOST_BLOCKS = 512
MOST_CHANNELS = 65_536
NumClasses = Annotated[int, within(least=0, most=1_000_000)]
Classes = Annotated[int, within(least=1, most=1_000_000)]
InChans = Annotated[int, within(least=1, most=1_024)]
DropRate = Annotated[float, within(least=0, below=1)]
Ratio = Annotated[float, within(least=0.01, most=100)]
Window = within(least=0, most=1_024)
Stages = Annotated[tuple[Annotated[int, within(least=1, most=MOST_STAGES)], ...], length(0, MOST_STAGES, "stages")]


@dataclass(frozen=True, kw_only=True, slots=True)
class HaloNetConfig:
    """One HaloNet: everything that the paper varies (Tables 2, 4, A1, A2; sections 4.2-4.6; appendices F and G).

    Attributes:
        block_size: b, side of a block in pixels.
        halo_size: h, width of the halo in pixels.
        value_ratio: r_v, width of the values over the stage width.
        bottleneck_ratio: r_b, output width of a block over the stage width.
        depths: Blocks of each stage; the third is l_3.
        image_size: s, side of the square training images in pixels; other sizes work.
        final_width: d_f, channels of the 1x1 convolution before the classifier, or None for none.
        num_heads: Heads of each stage.
        query_key_ratio: r_qk, width of queries and keys over the stage width.
        width_ratio: r_w; the stages are 64, 128, 256, 512 times this wide.
        stem: "conv7x7" (7x7 convolution with stride 2 and max pooling), "patch4x4" (linear projection of 4x4
            patches), and for small images "conv3x3", "conv3x3_stride2" and "patch2x2" (ours).
        stem_width: Channels of the stem.
        convolution_stages: Stages (from 1) whose mixer is a 3x3 convolution instead of attention.
        squeeze_excitation_stages: Stages (from 1) with squeeze-and-excitation.
        squeeze_excitation_ratio: Its reduction ratio.
        activation: "silu" or "relu".
        centered: Whether each pixel sees only its own centered window (SASA).
        downsampling: "attention" (strided attention) or "pool" (attention, then 2x2 average pooling: SASA).
        position: "relative", "absolute" or "none".
        embedding: "split" (the paper) or "full" tables.
        border: "mask" or "zeros", see `halonet.halo_attention`.

    Raises:
        RuleError: If values break rules; it names all of them.
    """

    block_size: Annotated[int, within(least=1, most=1_024)] = 8
    halo_size: Annotated[int, Window] = 3
    value_ratio: Ratio = 1.0
    bottleneck_ratio: Ratio = 4.0
    depths: Annotated[
        tuple[Annotated[int, within(least=1, most=MOST_BLOCKS)], ...], length(1, MOST_STAGES, "stages")
    ] = (3, 4, 6, 3)
    image_size: Side = 256
    final_width: Channels | None = None
    num_heads: tuple[Annotated[int, within(least=1, most=1_024)], ...] = (4, 8, 8, 8)
    query_key_ratio: Ratio = 1.0
    width_ratio: Ratio = 1.0
    stem: Annotated[str, one_of(*STEMS)] = "conv7x7"
    stem_width: Channels = 64
    convolution_stages: Stages = ()
    squeeze_excitation_stages: Stages = ()
    squeeze_excitation_ratio: Annotated[float, within(least=0.001, most=1)] = 0.125
    activation: Annotated[str, one_of(*ACTIVATIONS)] = "silu"
    centered: bool = False
    downsampling: Annotated[str, one_of(*DOWNSAMPLINGS)] = "attention"
    position: Annotated[str, one_of(*POSITIONS)] = "relative"
    embedding: Annotated[str, one_of(*EMBEDDINGS)] = "split"
    border: Annotated[str, one_of(*BORDERS)] = "mask"

    def __post_init__(self) -> None:
        check_fields(self)
        if complaints := [*self._stage_complaints(), *self._width_complaints()]:
            raise RuleError.of(type(self).__name__, complaints)

    def _stage_complaints(self) -> list[Complaint]:
        """Broken rules about the numbers of stages and blocks."""
        complaints = []
        stages = len(self.depths)
        if sum(self.depths) > MOST_BLOCKS:
            complaints.append(must_be("depths", self.depths, f"at most {MOST_BLOCKS} blocks in all"))
        if len(self.num_heads) != stages:
            words = f"as many numbers as depths {list(self.depths)} has stages, which is {stages}"
            complaints.append(must_be("num_heads", self.num_heads, words))
        for name in ("convolution_stages", "squeeze_excitation_stages"):
            if any(stage > stages for stage in getattr(self, name)):
                complaints.append(must_be(name, getattr(self, name), f"stages, which count from 1 to {stages}"))
        return complaints

    def _width_complaints(self) -> list[Complaint]:
        """Broken rules about the channels of each stage."""
        complaints: list[Complaint] = []
        attention = ("query_key_ratio", "value_ratio")
        for stage, (width, heads) in enumerate(zip(self.widths, self.num_heads, strict=False), 1):
            for name in ("bottleneck_ratio", *(attention if stage not in self.convolution_stages else ())):
                ratio = getattr(self, name)
                channels = scaled(width, ratio)
                words = ""
                if not 1 <= channels <= MOST_CHANNELS:
                    words = f"from 1 to {MOST_CHANNELS:,}"
                elif name in attention and channels % heads:
                    words = f"a multiple of the stage's {heads} heads"
                if words and name not in {complaint.key for complaint in complaints}:
                    text = f"is {ratio}, which gives stage {stage} {channels:,} channels, but they must be {words}"
                    complaints.append(Complaint(name, text))
        return complaints

    @property
    def widths(self) -> tuple[int, ...]:
        """Stage widths: 64, 128, 256, 512 times r_w."""
        return tuple(scaled(64 * 2**stage, self.width_ratio) for stage in range(len(self.depths)))

    @property
    def layers(self) -> int:
        """Number of layers as the paper counts them: three per block, the stem and the classifier."""
        return 3 * sum(self.depths) + 2


def scaled(width: int, ratio: float) -> int:
    """Channels of `ratio` times `width`, rounded to the nearest integer."""
    return round(width * ratio)


def _h(b: int, h: int, r_v: float, r_b: float, l_3: int, s: int, d_f: int | None, **others: object) -> HaloNetConfig:
    return HaloNetConfig(
        block_size=b, halo_size=h, value_ratio=r_v, bottleneck_ratio=r_b, depths=(3, 3, l_3, 3), image_size=s,
        final_width=d_f, **others,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


def _r50(depths: tuple[int, ...] = (3, 4, 6, 3), **others: object) -> HaloNetConfig:
    return HaloNetConfig(depths=depths, activation="relu", **others)  # pyright: ignore[reportArgumentType]


# fmt: off
HALONETS: dict[str, HaloNetConfig] = {
    # Table A2.       b   h   r_v   r_b  l_3    s   d_f       paper's M parameters
    "h0":          _h( 8,  3, 1.0, 0.5,    7, 256, None),   #  5.5
    "h1":          _h( 8,  3, 1.0, 1.0,   10, 256, None),   #  8.1
    "h2":          _h( 8,  3, 1.0, 1.25,  11, 256, None),   #  9.4
    "h3":          _h(10,  3, 1.0, 1.5,   12, 320, 1024),   # 12.3, but its own columns give 11.8
    "h4":          _h(12,  2, 1.0, 3.0,   12, 384, 1280),   # 19.1
    "h5":          _h(14,  2, 2.5, 2.0,   23, 448, 1536),   # 30.7
    "h6":          _h( 8,  4, 3.0, 2.75,  24, 512, 1536),   # 43.4
    "h7":          _h(10,  3, 4.0, 3.5,   26, 600, 2048),   # 67.4
    # Section 4.2: ResNet-50's allocation, 16 channels a head; activation and squeeze-excitation are switches.
    "halonet50":     _r50(num_heads=(4, 8, 16, 32)),                                 # 18.0
    "resnet50_twin": _r50(convolution_stages=(1, 2, 3, 4)),                          # 25.5
    # Table 4: convolutions, with squeeze-excitation, in the first stages of H7.
    "h7_c1":   _h(10, 3, 4.0, 3.5, 26, 600, 2048, convolution_stages=(1,),      squeeze_excitation_stages=(1,)),
    "h7_c12":  _h(10, 3, 4.0, 3.5, 26, 600, 2048, convolution_stages=(1, 2),    squeeze_excitation_stages=(1, 2)),
    "h7_c123": _h(10, 3, 4.0, 3.5, 26, 600, 2048, convolution_stages=(1, 2, 3), squeeze_excitation_stages=(1, 2, 3)),
    # Section 4.5 and appendix F: H4 of base width 128 for ImageNet-21k; as pre-trained, b = 8 and h = 2 at 256 px.
    "h4_21k":        HaloNetConfig(halo_size=2, depths=(3, 4, 12, 3), width_ratio=2.0),                             # 85
    "h4_21k_patch":  HaloNetConfig(halo_size=2, depths=(3, 4, 12, 3), width_ratio=2.0, stem="patch4x4"),            # 85
    "h4_21k_conv12": HaloNetConfig(halo_size=2, depths=(3, 4, 12, 3), width_ratio=2.0, convolution_stages=(1, 2)),  # 87
    # Section 4.6: detection backbones, squeeze-excitation in the convolution blocks, attention in the last stage.
    "r50se":  _r50(image_size=512, convolution_stages=(1, 2, 3, 4), squeeze_excitation_stages=(1, 2, 3, 4)),
    "r101se": _r50((3, 4, 23, 3), image_size=512, convolution_stages=(1, 2, 3, 4),
                   squeeze_excitation_stages=(1, 2, 3, 4)),
    "r50se_halo_b8":  _r50(image_size=512, convolution_stages=(1, 2, 3), squeeze_excitation_stages=(1, 2, 3)),
    "r50se_halo_b32": _r50(image_size=512, convolution_stages=(1, 2, 3), squeeze_excitation_stages=(1, 2, 3),
                           block_size=32),
    "r101se_halo_b8": _r50((3, 4, 23, 3), image_size=512, convolution_stages=(1, 2, 3),
                           squeeze_excitation_stages=(1, 2, 3)),
    # Not of the paper: ours, for small images.
    "tiny28":  HaloNetConfig(block_size=7, halo_size=1, bottleneck_ratio=2.0, depths=(1, 2), num_heads=(1, 2),
                             image_size=28, stem="conv3x3_stride2", stem_width=48, width_ratio=0.5),
    "micro32": HaloNetConfig(block_size=4, halo_size=1, bottleneck_ratio=1.0, depths=(1, 1, 1), num_heads=(2, 4, 8),
                             image_size=32, stem="conv3x3_stride2", stem_width=32, width_ratio=0.5),
    "mini32":  HaloNetConfig(block_size=4, halo_size=2, bottleneck_ratio=2.0, depths=(2, 3, 3), num_heads=(2, 4, 8),
                             image_size=32, stem="conv3x3_stride2", stem_width=32, width_ratio=0.5,
                             convolution_stages=(1,)),
    "small32": HaloNetConfig(block_size=8, halo_size=3, bottleneck_ratio=2.0, depths=(2, 3, 3), num_heads=(4, 8, 8),
                             image_size=32, stem="conv3x3", stem_width=64),
    "small64": HaloNetConfig(block_size=8, halo_size=3, bottleneck_ratio=2.0, depths=(2, 3, 3), num_heads=(4, 8, 8),
                             image_size=64, stem="conv3x3_stride2", stem_width=64),
}
# fmt: on
