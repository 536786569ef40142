"""Time the detectors of the paper's Table 5 on a CPU or GPU: what attention in the last stage costs.

    python tools/time_detectors.py --output results/detector_time.json

All take the same image of 800 x 1333 pixels, batch 1, in turns. Weights are random: each detector proposes and judges
1,000 boxes, but none passes the threshold, so that no masks are drawn. Of a trained detector attention is a smaller
part. The backbones, with their pyramids, are timed alone too.
"""

import argparse
import json
import platform
import statistics
import subprocess
import time
from pathlib import Path

import torch
import torchvision

import halonet
from halonet.benchmark.record import describe_machine
from halonet.detection import create_detector

BACKBONES = ["resnet50_twin", "r50se", "r50se_halo_b8", "r50se_halo_b32", "r101se", "r101se_halo_b8"]
SIZE = (800, 1333)


class Backbone(torch.nn.Module):
    """A detector up to its pyramid."""

    def __init__(self, detector: torch.nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: list[torch.Tensor]) -> object:
        """Compute the levels of the pyramid."""
        prepared, _ = self.detector.transform(images)
        return self.detector.backbone(prepared.tensors)


@torch.inference_mode()
def time_once(network: torch.nn.Module, images: list[torch.Tensor], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    network(images)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the detectors of Table 5.")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    networks: dict[str, torch.nn.Module] = {}
    for name in options.backbones:
        torch.manual_seed(0)
        networks[name] = create_detector(name, 80).eval().to(device)
    torch.manual_seed(0)
    peer = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=81)
    networks["torchvision maskrcnn_resnet50_fpn"] = peer.eval().to(device)
    images = [torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)).to(device)]
    for name, detector in list(networks.items()):
        networks[f"{name}, backbone"] = Backbone(detector)
    milliseconds: dict[str, list[float]] = {name: [] for name in networks}
    for repeat in range(-1, options.repeats):
        for name, network in networks.items():
            taken = time_once(network, images, device)
            if repeat >= 0:
                milliseconds[name].append(taken)
    rows = []
    for name, times in milliseconds.items():
        median = statistics.median(times)
        base = options.backbones[0] + (", backbone" if name.endswith("backbone") else "")
        ratio = median / statistics.median(milliseconds[base])
        rows.append({"detector": name, "milliseconds": times, "median": median, "times_first": ratio})
        print(f"{name:35} {median:8.0f} ms ({min(times):.0f} to {max(times):.0f})  {ratio:.3f} x")
    if options.output is not None:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout
        record = {
            "size": SIZE,
            "batch": 1,
            "device": str(device),
            "threads": torch.get_num_threads(),
            "machine": describe_machine(),
            "python": platform.python_version(),
            "versions": {name: str(m.__version__) for name, m in (("halonet", halonet), ("torch", torch))},
            "commit": commit.strip(),
            "rows": rows,
        }
        options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
