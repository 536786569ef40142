"""`halonet benchmark` and its commands."""

import argparse
import importlib.util
import os
from pathlib import Path
from typing import Any

from halonet_cli.parser import UsageError, add_command, add_commands


def add(commands: Any) -> None:
    """Add the benchmarks."""
    parser = add_command(commands, "benchmark", None, "time and memory of the operator and of whole networks")
    kinds = add_commands(parser, "benchmark", "WHAT")

    suite = add_command(
        kinds, "all", "benchmark:run_all", "measure everything on a GPU within a few minutes, in one file"
    )
    suite.add_argument("--minutes", type=float, default=6.0, help="begin no measurement later than this")
    suite.add_argument("--sections", nargs="+", metavar="NAME", help="which (default: all, in order of importance)")
    suite.add_argument("--device", default="auto", help="cuda, ...; cpu only with --smoke")
    suite.add_argument("--dtype", default="bfloat16", help="of the operator, and of networks by autocast")
    suite.add_argument("--smoke", action="store_true", help="try everything at tiny sizes; the figures mean nothing")
    suite.add_argument("--output", type=Path, default=Path("benchmark.json"), metavar="FILE", help="add to this file")

    operator = add_command(kinds, "operator", "benchmark:run_operator", "time the bare operator beside its peers")
    operator.add_argument(
        "--sizes", nargs="+", metavar="NAME", help="e.g. h5/stage2-strided, h7, awkward (default: h1's stages)"
    )
    operator.add_argument("--passes", nargs="+", metavar="PASS", help="forward, training (default: both)")
    operator.add_argument("--peers", nargs="+", metavar="NAME", help="what to time beside ours (default: all)")
    operator.add_argument("--compare", metavar="WHAT", help="time variants of ours: centered, strided")
    operator.add_argument("--scaling", metavar="WHAT", help="how time grows with the image, or with the window")
    operator.add_argument("--skip-memory", action="store_true", help="measure no peak memory")
    add_settings(operator, batch=4, repeats=15, dtype="float32", plot=True)

    model = add_command(kinds, "model", "benchmark:run_model", "time whole networks")
    model.add_argument("--models", nargs="+", metavar="NAME", help="rows of `halonet info`, and timm/NAME")
    model.add_argument("--passes", nargs="+", metavar="PASS", help="inference, training (default: both)")
    model.add_argument("--accelerate", action="store_true", help="timm's halo networks before and after accelerate")
    model.add_argument("--compare", metavar="WHAT", help="time variants of our rows: centered, strided")
    model.add_argument("--compile", action="store_true", help="time the halo networks compiled too")
    model.add_argument("--image-size", type=int, help="in pixels (default: 256; with --accelerate the network's own)")
    add_settings(model, batch=[1, 4], repeats=7, dtype="float32", plot=True)

    memory = add_command(kinds, "memory", "benchmark:run_memory", "measure the peak memory of one step")
    memory.add_argument("--models", nargs="+", metavar="NAME", help="default: h1 timm/halonet_h1")
    memory.add_argument("--pass", dest="task", default="training", help="inference or training")
    memory.add_argument("--image-size", type=int, default=256, help="side of the images in pixels")
    add_settings(memory, batch=16, repeats=None, dtype="float32")

    detector = add_command(
        kinds, "detector", "benchmark_detection:run_detector", "time the detectors of the paper's Table 5"
    )
    detector.add_argument("--backbones", nargs="+", metavar="NAME", help="default: those of Table 5")
    add_settings(detector, batch=1, repeats=5)

    precision = add_command(
        kinds, "average-precision", "benchmark_detection:run_average_precision", "time the evaluation of detections"
    )
    precision.add_argument("--images", type=int, default=5000, help="default: as many as COCO's validation set has")
    precision.add_argument("--detections", type=int, default=100, help="per image")
    precision.add_argument("--both", action="store_true", help="time pycocotools too, and compare")
    precision.add_argument("--repeats", type=int, default=2, help="timed runs of each")
    precision.add_argument("--output", type=Path, metavar="FILE", help="write the record, or append to it")

    export = add_command(
        kinds, "export", "benchmark_export:run_export", "export networks, verify the files, and say what it took"
    )
    export.add_argument("--models", nargs="+", metavar="NAME", help="rows of `halonet info` (default: all)")
    export.add_argument("--formats", nargs="+", metavar="NAME", help="onnx, pt2, aoti (default: onnx and pt2)")
    export.add_argument(
        "--speed", action="store_true", help="time the networks in ONNX Runtime and AOTInductor beside ours"
    )
    export.add_argument("--image-size", type=int, default=256, help="with --speed: side of the images in pixels")
    add_settings(export, batch=1, repeats=15)

    int8 = add_command(
        kinds, "int8", "benchmark_export:run_int8", "measure what int8 costs and gains in exported files"
    )
    add_settings(int8, batch=1, repeats=30)

    add_triton(kinds)

    claims = add_command(
        kinds, "claims", "claims:run_claims", "train the next missing runs of the paper's claims on CIFAR-10"
    )
    claims.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder that holds CIFAR-10")
    claims.add_argument("--minutes", type=float, help="start no run that would end later (default: no limit)")
    claims.add_argument("--row", metavar="ROW", help="train only this row of the plan")
    claims.add_argument("--shard", default="1/1", metavar="I/N", help="every N-th run from the I-th on")
    claims.add_argument(
        "--output", type=Path, default=Path("results/claims"), metavar="DIR", help="where the records are"
    )


def add_triton(kinds: Any) -> None:
    """Add `halonet benchmark triton`, which needs no GPU, and `tune`, which does."""
    parser = add_command(kinds, "triton", None, "compile the Triton kernels or search configurations, without a GPU")
    commands = add_commands(parser, "triton", "WHAT")
    compiled = add_command(
        commands,
        "compile",
        "triton:run_compile",
        "compile kernels without a GPU, and predict their limits",
        check=check_compiler,
    )
    compiled.add_argument("--sizes", nargs="+", default=["h1"], metavar="NAME", help="as for `operator`")
    compiled.add_argument("--dtypes", nargs="+", default=["bf16"], metavar="DTYPE", help="bf16, fp16, fp32")
    compiled.add_argument("--architectures", nargs="+", type=int, metavar="N", help="10 x the compute capability")
    compiled.add_argument("--batch", type=int, default=256, help="images at a time")
    compiled.add_argument("--output", type=Path, metavar="FILE", help="write the record (default: print it)")
    search = add_command(
        commands,
        "search",
        "triton:run_search",
        "search configurations for the kernels' table without a GPU",
        check=check_compiler,
    )
    search.add_argument("--kernels", nargs="+", metavar="NAME", help="forward, queries, keys (default: all)")
    search.add_argument("--itemsizes", nargs="+", type=int, metavar="BYTES", help="2, 4 (default: both)")
    search.add_argument("--channels", nargs="+", type=int, metavar="N", help="of heads (default: all in the table)")
    search.add_argument("--processes", type=int, default=os.cpu_count(), help="how many to run at once")
    search.add_argument("--record", type=Path, metavar="FILE", help="do not search: record what the whole table takes")
    tune = add_command(
        kinds, "tune", "tune:run_tune", "find faster configurations of the Triton kernels, on a GPU", check=check_triton
    )
    tune.add_argument("--sizes", nargs="+", metavar="NAME", help="as for `operator` (default: h1's stages)")
    add_settings(tune, batch=256, repeats=9, dtype="bfloat16")


def add_settings(
    parser: argparse.ArgumentParser,
    batch: int | list[int],
    repeats: int | None,
    dtype: str | None = None,
    plot: bool = False,
) -> None:
    """Add the flags that `make_settings` and `check_outputs` read."""
    several = "+" if isinstance(batch, list) else None
    parser.add_argument("--batch", type=int, default=batch, nargs=several, help="images at a time")
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, help="timed runs of each")
    parser.add_argument("--threads", type=int, help="default: as many as PyTorch takes")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the record, or append to it")
    if dtype is not None:
        parser.add_argument("--dtype", default=dtype, help="of the operator, and of networks by autocast")
    if plot:
        parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures (png, svg or pdf)")


def check_triton(options: argparse.Namespace) -> None:
    """Refuse to go on without Triton."""
    if importlib.util.find_spec("triton") is None:
        raise UsageError("this benchmark needs Triton, which is not installed: pip install triton")


def check_compiler(options: argparse.Namespace) -> None:
    """Refuse to go on without Triton, and forbid its interpreter, which must be done before its import."""
    check_triton(options)
    os.environ["TRITON_INTERPRET"] = "0"
