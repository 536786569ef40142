"""Writes the golden files; only the code of commit f6ecc6c may run it: see README.md in this folder.

Run as a program in a checkout of that commit: `python PATH/write.py OUTPUT`.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch

import halonet
from halonet import detection, training
from halonet.detection.run import _job as detection_job
from halonet.training.engine import start
from halonet.training.recipes import list_recipes, resolve, task_of, to_yaml
from halonet.training.run import _job as classification_job
from halonet.training.weights import describe, save_weights
from tests.detection import tiny as tiny_detection
from tests.training import tiny as tiny_classification

SMALL = {"block_size": 4, "halo_size": 1, "depths": (1, 1), "num_heads": (2, 2), "width_ratio": 0.125, "stem_width": 8}
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pooled_full_tables": {"downsampling": "pool", "embedding": "full", "centered": True, "stem": "conv3x3"},
    "absolute_wide_values": {"position": "absolute", "value_ratio": 2.0, "stem": "patch4x4", "final_width": 24},
    "zeros_no_position": {"position": "none", "border": "zeros", "activation": "relu", "stem": "conv3x3_stride2"},
    "convolutions": {"convolution_stages": (1,), "squeeze_excitation_stages": (1, 2), "query_key_ratio": 0.5},
}
KEPT = ("recipe.yaml", "result.json", "log.jsonl", "timing.jsonl", "model.safetensors", "checkpoints")


class Kill(lightning.Callback):
    """Ends the process after an optimizer step, as a crash would."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def images_of(batch: int) -> torch.Tensor:
    """Make images that need no random generator: [batch, 3, 32, 32]."""
    return torch.sin(torch.arange(batch * 3 * 32 * 32).double() * 0.7).float().reshape(batch, 3, 32, 32)


def write_networks(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, options in NETWORKS.items():
        torch.manual_seed(0)
        config = halonet.HaloNetConfig(**(SMALL | options))
        network = halonet.HaloNet(config, num_classes=3)
        for _ in range(3):  # gives batch norm statistics
            network.train()(images_of(8))
        network.eval()
        save_weights(folder / f"{name}.safetensors", network.state_dict(), describe(network))
        with torch.no_grad():
            logits = network(images_of(2)).tolist()
        (folder / f"{name}.json").write_text(json.dumps({"logits": logits}, indent=1) + "\n")


def write_runs(folder: Path, recipe: Any, make_job: Callable[[Any], Any], killed_at: int) -> None:
    """Train to the end, and again until a kill; the recipe's data lie in the working directory."""
    start(make_job(recipe), folder / "finished")
    child = os.fork()
    if child == 0:
        start(make_job(recipe), folder / "interrupted", callbacks=[Kill(killed_at)])
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status
    for run in ("finished", "interrupted"):
        for path in (folder / run).iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_recipes(folder: Path) -> None:
    folder.mkdir()
    for name in list_recipes():
        schema = detection.recipe.DetectionRecipe if task_of(name) == "detection" else training.recipe.Recipe
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(to_yaml(resolve(name, schema=schema)), encoding="utf-8")


def main() -> None:
    output = Path(sys.argv[1]).absolute()
    torch.set_num_threads(1)
    write_networks(output / "networks")
    write_recipes(output / "recipes")
    for task, tiny, make_data, make_job, killed_at in (
        ("classification", tiny_classification, tiny_classification.make_images, classification_job, 8),
        ("detection", tiny_detection, tiny_detection.make_scenes, detection_job, 5),
    ):
        folder = output / task
        folder.mkdir()
        os.chdir(folder)
        make_data(Path("images"))
        # Not the public `train`, which would write the absolute name of the data's folder.
        write_runs(folder, tiny.tiny_recipe("images"), make_job, killed_at)


if __name__ == "__main__":
    main()
