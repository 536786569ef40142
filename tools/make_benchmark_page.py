"""Write docs/benchmarks.md with its charts, and the README's figures of speed, from the records in results/.

    python tools/make_benchmark_page.py            # rewrites all of them
    python tools/make_benchmark_page.py --check    # says whether they are up to date, and changes nothing

A record holds one or more runs of one command on one machine. Figures are medians over the runs, with the least and
the greatest run in parentheses where there are several. Records that do not exist yet are left out.
"""

import sys
from pathlib import Path

from benchmark_answers import make_answers, make_speed
from benchmark_details import make_details
from benchmark_records import RESULTS
from draw_benchmarks import make_charts
from pages import ROOT, replaced, write_pages

PAGE, README = ROOT / "docs/benchmarks.md", ROOT / "README.md"
BEGIN = "<!-- speed: written by tools/make_benchmark_page.py -->"
END = "<!-- end of speed -->"

INTRODUCTION = """\
# Benchmarks

Time and memory beside timm and others that compute the same. `tools/make_benchmark_page.py` writes this page from the
records in `results/`.
"""

METHOD = """\
## How it was measured

`halonet benchmark operator`, `model` and `memory` repeat all of it on your machine; `--output FILE` keeps a record, and
appends to it when run again. A CPU's milliseconds are of shared two-core machines and serve only the ratios.

- Implementations in a row run in turns, two rounds to warm up and then the timed ones, so that other work on the
  machine affects all of them alike. A run's figure is the median; its quartiles are in the record.
- All get the same queries, keys and values, and are first checked to compute the same as ours, each with its own
  tables and its own border rule. What cannot run a size, or computes something else, is listed with the reason.
- `timm` is its `HaloAttn` and `halonet-pytorch` its `HaloAttention`, both without their projections. FlexAttention is
  compiled, with the halo as its mask and relative logits; it has no backward on a CPU. NATTEN's strided neighborhood
  attention has no positions and moves windows inward at the border: it is checked in the interior, and does less.
- On a GPU, an operator's time is the device's, between two events that Python enqueues while the device is kept
  waiting; a network's is the host's, launches included.
- `training` is forward and backward with fresh gradients, `forward` and `inference` are without gradients.
- An operator's bound is matrix FLOPs / the measured rate of a large product + exponentials / the measured rate of
  `torch.exp` in the cache, of pairs of query and key inside the image only: two products forward, five backward, the
  products with the position tables, and one exponential for each pair and pass. On a GPU, whose units work at the same
  time, it is the largest of FLOPs, exponentials and bytes, each over its measured rate.
- A network's bound is the same network with attention replaced by its values: what remains if attention took no time.
- Memory is the peak of a fresh process above what inputs and weights take: the process's own on a CPU (Linux), and what
  PyTorch allocated on a GPU.
"""

DETAILS = """\
## All figures

Medians over the runs of a record, with the least and the greatest run in parentheses where there are several. Measured
on CPUs, and on an H100 where a heading says so.
"""

OWED = """\
## Owed: what only a GPU can tell

Whoever has one runs these, in this order, and commits what they write to `results/`:

1. After a change of the kernels: `pytest tests/ops -m gpu`, then `pytest tests/ops/attention/test_triton.py`: the
   operator's suite, large sizes, poisoned memory, equal bits of two runs, and compute-sanitizer where it is installed.
   Hundreds of kernels are compiled: pytest-xdist's `-n 12` makes minutes of it. Where PyTorch, Triton and pytest
   are all there is, add `-o addopts=--import-mode=importlib -o filterwarnings=default`, and set `PYTHONPATH=src`.
2. `halonet benchmark all --sections networks networks_compiled operator_beside_compiled accelerate
   networks_of_21k operator_of_h0_to_h7`, and all of it where NATTEN is installed: what the H100 had no time for on this
   version, training of whole networks first.
3. `halonet benchmark tune --sizes h4 --output results/tune.json`: whether other configurations are faster for
   wider heads and in fp32; all layers of H1 have been tuned in bf16.
4. `halonet benchmark detector --device cuda`, and a detector that learns fifty photos of COCO by heart.
5. Training with several GPUs, by DDP and FSDP, through the Triton kernels.
"""


def make_page(results: Path = RESULTS) -> str:
    """Write the page from the records that are there."""
    parts = (INTRODUCTION, make_answers(results), METHOD, DETAILS, make_details(results), OWED)
    return "\n".join(part for part in parts if part)


def make_pages() -> dict[Path, str]:
    return {PAGE: make_page(), README: replaced(README, BEGIN, END, make_speed(RESULTS)), **make_charts()}


if __name__ == "__main__":
    sys.exit(write_pages(__doc__, make_pages))
