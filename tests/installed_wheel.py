"""Use an installed wheel as its first user would: `python tests/installed_wheel.py release` (or `plain`: no kernel).

It needs what the wheel itself requires and nothing else. `.ci/wheel` and cibuildwheel run it outside the repository.
"""

import json
import platform
import subprocess
import sys
import sysconfig
import warnings
from importlib.metadata import distribution
from pathlib import Path

import torch

import halonet


def main() -> None:
    has_kernel = sys.argv[1] == "release"
    assert Path(halonet.__file__).is_relative_to(sysconfig.get_path("platlib")), halonet.__file__
    check_files(has_kernel)
    check_info(has_kernel)
    torch.manual_seed(0)
    model = halonet.create_model("tiny28", num_classes=10).eval()
    image = torch.randn(2, 3, 29, 41)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", halonet.errors.UserNote)
        with torch.inference_mode(), halonet.use_backend("cpu" if has_kernel else "auto"):
            logits = model(image)
    assert has_kernel != any("C++ compiler" in str(note.message) for note in notes), notes
    with torch.inference_mode(), halonet.use_backend("reference"):
        torch.testing.assert_close(logits, model(image), rtol=1e-3, atol=1e-5)
    if sys.platform == "linux":
        runtimes = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
        assert len(runtimes) == 1, f"one OpenMP runtime, PyTorch's, not {runtimes}"
    print("import, info, forward: as they should be")


def check_files(has_kernel: bool) -> None:
    """Only the kernel itself comes along, and no library that it needs."""
    names = [Path(str(file)).name for file in distribution("halonet").files or []]
    libraries = [name for name in names if ".so" in name or name.endswith((".dll", ".dylib"))]
    assert len(libraries) == has_kernel, libraries


def check_info(has_kernel: bool) -> None:
    """The command says which instruction set runs, the best that this processor has, or why there is no kernel."""
    command = Path(sysconfig.get_path("scripts"), "halonet")
    answer = json.loads(subprocess.check_output([command, "info", "--json", "tiny28"]))
    (row,) = [row for row in answer["backends"] if row["backend"] == "cpu"]
    summary = row["summary"]
    print(summary)
    if not has_kernel:
        assert "no kernel" in summary
        assert "C++ compiler" in summary
    elif sys.platform == "linux" and platform.machine() == "x86_64":
        assert f"({best_instruction_set()})" in summary


def best_instruction_set() -> str:
    """What the operating system says of the processor."""
    (flags, *_) = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")]
    has = set(flags.split()).issuperset
    if has({"fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}):
        return "avx512"
    return "avx2" if has({"fma", "avx2"}) else "baseline"


if __name__ == "__main__":
    main()
