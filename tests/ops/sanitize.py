"""Run the CPU kernel under AddressSanitizer and UndefinedBehaviorSanitizer.

    python -m tests.ops.sanitize            # every instruction set: a fuzz of 3,000 calls, and the operator's tests
    python -m tests.ops.sanitize --short    # the baseline alone, and a fuzz of 300: under a minute on two cores

The library is built into build/sanitize. The fuzz draws geometries of any size up to the limits of 64 bits: a call is
refused with one line, or agrees with the backend `reference` or, where that would not fit into memory, with values that
are all the same. It also gives the library itself numbers that Python never would: these it must refuse. A finding of a
sanitizer ends the process. PyTorch itself is not instrumented, and leaks are not looked for: Python leaves many.
"""

import argparse
import ctypes
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIBRARIES = ("libasan.so", "libubsan.so", "libstdc++.so")
OPTIONS = "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:detect_stack_use_after_return=1"
TESTS = ["tests/ops/test_batch_norm.py", "tests/ops/attention"]
# Those of other backends, those that start compilers, which the sanitizers would follow, and those of the last bits.
LEFT_OUT = "triton or composite or compile or default_compiler or timm or processes or forked or rounding"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="the baseline instruction set and fewer calls; no tests")
    parser.add_argument("--calls", type=int, help="how many calls the fuzz makes")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzz")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    calls = options.calls or (300 if options.short else 3000)
    if options.inside:
        fuzz(calls, options.seed)
        return
    environment = os.environ | {
        "HALONET_LIBRARY": str(build(options.short)),
        "LD_PRELOAD": ":".join(map(find, LIBRARIES)),
        "ASAN_OPTIONS": OPTIONS,
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    script = [sys.executable, "-m", "tests.ops.sanitize", "--inside", "--calls", str(calls)]
    for name in ["baseline"] if options.short else ["avx512", "avx2", "baseline"]:
        print(f"== fuzz: {calls} calls, seed {options.seed}, at most {name}", flush=True)
        chosen = environment if options.short else environment | {"HALONET_INSTRUCTION_SET": name}
        subprocess.run([*script, "--seed", str(options.seed)], cwd=ROOT, env=chosen, check=True)
    if not options.short:
        print("== the operator's tests", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, "-k", f"not ({LEFT_OUT})"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    print("clean")


def build(short: bool) -> Path:
    """Build the library with the sanitizers."""
    folder = ROOT / "build" / ("sanitize-short" if short else "sanitize")
    switches = ["-DHALONET_SANITIZE=ON", f"-DHALONET_BASELINE_ONLY={'ON' if short else 'OFF'}"]
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    subprocess.run(["cmake", *generator, "-S", ROOT / "csrc", "-B", folder, *switches], check=True, stdout=sys.stderr)
    subprocess.run(["cmake", "--build", folder, "--parallel", "2"], check=True, stdout=sys.stderr)
    return folder / "halonet_cpu.so"


def find(library: str) -> str:
    """Ask the compiler for the place of a library that must be loaded before all others."""
    compiler = os.environ.get("CXX", "c++")
    return subprocess.check_output([compiler, f"-print-file-name={library}"], text=True).strip()


def fuzz(calls: int, seed: int) -> None:
    """Call the operator and the library with whatever comes."""
    generator = random.Random(seed)
    counts: dict[str, int] = {}
    for _ in range(calls):
        for attempt in (call_operator, call_library):
            result = f"{attempt.__name__}: {attempt(generator)}"
            counts[result] = counts.get(result, 0) + 1
    for result, count in sorted(counts.items()):
        print(f"{count:6} {result}")


def draw(generator: random.Random, small: int) -> int:
    """Draw a number that is mostly small, else near a power of 2 up to the limits of 64 bits, or negative."""
    kind = generator.random()
    if kind < 0.75:
        return generator.randint(0 if kind < 0.1 else 1, small)
    if kind < 0.95:
        return 2 ** generator.randint(4, 63) + generator.randint(-2, 2)
    return generator.choice([-1, -(2**31), -(2**63), 2**64, 10**30])


def call_operator(generator: random.Random) -> str:
    """Attend with a random geometry; say how it went."""
    import torch

    import halonet
    from halonet.errors import UserError

    sides = [draw(generator, 9) if generator.random() < 0.2 else generator.randint(1, 9) for _ in range(2)]
    geometry: dict[str, Any] = {
        name: tuple(draw(generator, small) for _ in range(2))
        for name, small in (("block_size", 4), ("halo_size", 4), ("stride", 3))
    }
    geometry |= {"border": generator.choice(["mask", "mask", "zeros"]), "centered": generator.random() < 0.3}
    if generator.random() < 0.2:
        geometry["offset_stride"] = draw(generator, 2)
    blocks_and_halos = list(zip(geometry["block_size"], geometry["halo_size"], strict=True))
    keys = math.prod(
        max(1, block + 2 * halo if geometry["border"] == "zeros" else min(block + 2 * halo, side))
        for (block, halo), side in zip(blocks_and_halos, sides, strict=True)
    )
    grid = [-(-side // max(step, 1)) for side, step in zip(sides, geometry["stride"], strict=True)]
    if not all(1 <= side <= 2**40 for side in sides) or math.prod(grid) > 100 or 2000 < keys <= 2**24:
        return "not drawn, for it would take long"

    torch.manual_seed(generator.randrange(2**31))
    dtype = generator.choice([torch.float32, torch.float64])
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    batch, heads, d_qk, d_v = (generator.randint(1, most) for most in (2, 2, 37, 20))
    huge = max(sides) > 9
    in_memory = (1, 1) if huge else sides
    query = torch.randn(batch, *grid, heads, d_qk, dtype=dtype)
    key, value = (torch.randn(batch, *in_memory, heads, d, dtype=dtype) for d in (d_qk, d_v))
    key, value = (each.expand(batch, *sides, heads, -1) for each in (key, value))
    lengths = [2 * (block + halo) - 1 for block, halo in blocks_and_halos]
    tables: list[Any] = [None, None]
    if generator.random() < 0.5 and min(lengths) > 0 and max(lengths) < 10_000:
        tables = [torch.randn(length, d_qk, dtype=dtype) for length in lengths]
    tensors = [query, key, value, *tables]
    try:
        if huge:
            output = halonet.halo_attention(*tensors, **geometry, backend="cpu")
            if geometry["border"] == "zeros":
                return "ran"
            torch.testing.assert_close(output, value[:, :1, :1].expand_as(output), rtol=tolerance, atol=tolerance)
            return "agrees with equal values"
        found, expected = (attend(halonet, tensors, geometry, backend) for backend in ("cpu", "reference"))
    except UserError as error:
        return "refused" if len(str(error).splitlines()) == 1 else f"refused in several lines: {error}"
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, b.abs().max().item()))
    return "agrees with reference"


def attend(halonet: Any, tensors: list[Any], geometry: dict[str, Any], backend: str) -> list[Any]:
    """Compute output and gradients."""
    import torch

    leaves = [None if each is None else each.clone().requires_grad_() for each in tensors]
    output = halonet.halo_attention(*leaves, **geometry, backend=backend)
    return [output, *torch.autograd.grad(output.sin().sum(), [each for each in leaves if each is not None])]


def call_library(generator: random.Random) -> str:
    """Give the library itself a call some of whose numbers are absurd; say what it returned."""
    import torch

    from halonet.ops import cpu_library
    from halonet.ops.attention import cpu, registration
    from halonet.ops.attention.geometry import make_geometry

    sides, block, halo = (generator.randint(1, 9), generator.randint(1, 9)), generator.randint(1, 4), 2
    query = torch.randn(2, *sides, 2, 8)
    table = torch.randn(2 * (block + halo) - 1, 4)
    geometry = make_geometry(*sides, block_size=block, halo_size=halo, centered=generator.random() < 0.5)
    call = cpu._call(registration.Inputs(query, query, query, table, table), geometry, 0.3)
    written = [torch.zeros_like(query) for _ in range(5)] + [torch.zeros_like(table) for _ in range(2)]
    log_sum = torch.zeros(query.shape[:4])
    call.output, call.grad_output, call.grad_query, call.grad_key, call.grad_value = map(cpu._image, written[:5])
    call.grad_row_table, call.grad_column_table = (each.data_ptr() for each in written[5:])
    call.log_sum = log_sum.data_ptr()
    fields = [(target, name) for target in (call, call.rows, call.columns, call.query, call.grad_key, call.row_table)
              for name, kind in target._fields_ if kind is ctypes.c_int64]  # fmt: skip
    for target, name in generator.sample(fields, generator.randint(0, 3)):
        number = generator.choice([-1, -(2**63), -(2**40), 2**46, 2**62, 2**63 - 1, 2 ** generator.randint(46, 62)])
        setattr(target, name, number)
    backward = generator.randint(0, 1)
    status = cpu_library.library().halonet_run(ctypes.byref(call), 0, backward)
    if status and any(each.abs().sum() for each in [*written, log_sum]):
        raise AssertionError(f"the library refused a call with status {status} and wrote all the same")
    return ["done", "no memory", "refused", "too large"][status]


if __name__ == "__main__":
    main()
