"""Break small trainings in every way that a machine can, and check that none loses anything and each says so.

    python tools/break_runs.py --kills 20 --double-resumes 5 --damages 12 --full-disks 9

Each training is forked from this process, which has imported everything. A training that was broken is continued by the
command line it was begun with, `--resume-or-start`, and must end with the bits of one that was left alone.
"""

import argparse
import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from halonet.training import run
from halonet.training.lock import LOCK_FILE
from halonet_cli.main import main as halonet

CHANGES = {
    "model.num_classes": 2,
    "data.augmentation.image_size": 8,
    "data.augmentation.padding": 1,
    "optimizer.batch_size": 2,
    "optimizer.learning_rate": 0.05,
    "schedule.epochs": 3,
    "schedule.warmup_epochs": 1,
    "engine.accelerator": "cpu",
    "engine.checkpoint_every_steps": 2,
    "engine.log_every_steps": 1,
    "ema.decay": 0.9,
    "model.overrides.depths": "[1, 1]",
    "model.overrides.num_heads": "[2, 2]",
    "model.overrides.width_ratio": 0.125,
    "model.overrides.block_size": 4,
    "model.overrides.halo_size": 1,
}
SPLITS = {"train": 12, "val": 4, "test": 4}  # images of each class
LIMIT = 1000  # bytes of a file when the disk is full: enough for what is said on stderr
Prepare = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("kills", "double-resumes", "damages", "full-disks"):
        parser.add_argument(f"--{name}", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    options = parser.parse_args()
    random.seed(options.seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder))
        trial.kill(options.kills)
        trial.resume_twice(options.double_resumes)
        trial.damage(options.damages)
        trial.fill_disk(options.full_disks)


class Trial:
    """A training that was left alone, and others that are compared with it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.errors = folder / "stderr"
        make_images(folder / "data")
        begin = time.monotonic()
        self.check(self.train("alone"), 0, [])
        self.seconds = time.monotonic() - begin
        self.expected = traces(folder / "alone")
        print(f"a training left alone takes {self.seconds:.1f} s", flush=True)

    def kill(self, count: int) -> None:
        """Kill at random moments, a third of them in a run that was killed before."""
        for number in range(count):
            name = f"killed {number - number % 3}"
            child = self.begin(name)
            time.sleep(random.uniform(0, self.seconds))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if number % 3 == 2 or number == count - 1:
                self.end_well(name)
        print(f"{count} kills: all ended with the bits of the run that was left alone", flush=True)

    def resume_twice(self, count: int) -> None:
        """Continue a run while it is being continued."""
        for number in range(count):
            name = f"twice {number}"
            child = self.begin(name)
            lock = self.folder / name / LOCK_FILE
            while not (lock.exists() and lock.read_text()):
                time.sleep(0.01)
            self.check(self.train(name), 2, [f"is in use by process {child}"])
            assert os.waitpid(child, 0)[1] == 0
            self.end_well(name)
        print(f"{count} double resumes: each second one was refused with the first one's process id", flush=True)

    def damage(self, count: int) -> None:
        """Damage the last checkpoint of a run that was stopped: flipped bytes, cut short, empty."""
        if not count:
            return
        self.check(self.train("stopped", lambda: stop_at_step(17)), 143, ["SIGTERM after step 17, which is saved"])
        size = (self.folder / "stopped" / "checkpoints" / "last.ckpt").stat().st_size
        for number in range(count):
            name = f"damaged {number}"
            shutil.copytree(self.folder / "stopped", self.folder / name)
            path = self.folder / name / "checkpoints" / "last.ckpt"
            content = bytearray(path.read_bytes())
            if number % 4 == 3:
                content = content[: random.choice([0, random.randrange(size)])]
            else:
                place = random.randrange(size)
                content[place : place + 64] = bytes(255 - byte for byte in content[place : place + 64])
            path.write_bytes(content)
            self.check(self.train(name), 0, ["goes on from the checkpoint before it, after step 16"])
            self.end_well(name)
        print(f"{count} damaged checkpoints: each was told, and the one before it taken", flush=True)

    def fill_disk(self, count: int) -> None:
        """Let no file grow from a random moment on."""
        met = tried = 0
        while met < count:
            tried += 1
            assert tried <= 5 * count, "the moments come after the last file"
            name = f"full {tried}"
            moment = random.uniform(0.1, 0.8) * self.seconds
            status, said = self.train(name, lambda moment=moment: limit_files_after(moment))
            if status:
                self.check((status, said), 2, ["no space left to write", "make room, then "])
                met += 1
            self.end_well(name)
        print(f"{count} full disks: each was told, and the run continued", flush=True)

    def begin(self, name: str, prepare: Prepare = lambda: None) -> int:
        """Train in a process of its own; returns its number."""
        words = ["train", "fashion_mnist", "--resume-or-start", "--run-dir", str(self.folder / name)]
        words += [f"{key}={value}" for key, value in (CHANGES | {"data.source": self.folder / "data"}).items()]
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(os.open(self.errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
                prepare()
                status = halonet(words)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        return child

    def train(self, name: str, prepare: Prepare = lambda: None) -> tuple[int, list[str]]:
        """Train to the end; returns the exit status, and what was said on stderr."""
        status = os.waitpid(self.begin(name, prepare), 0)[1]
        return os.waitstatus_to_exitcode(status), self.errors.read_text().splitlines()

    def end_well(self, name: str) -> None:
        """Continue a run to its end, which must be that of the one that was left alone."""
        status, said = self.train(name)
        assert status == 0, said
        found = traces(self.folder / name)
        assert found == self.expected, [key for key, value in found.items() if value != self.expected[key]]
        assert not list((self.folder / name).rglob(".*.partial"))
        shutil.rmtree(self.folder / name)

    def check(self, found: tuple[int, list[str]], status: int, words: list[str]) -> None:
        """Expect an exit status, and a line with certain words, or none."""
        assert found[0] == status, found
        assert len(found[1]) == bool(words), found
        assert all(each in found[1][0] for each in words), found


def traces(folder: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on what happened to it."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    state = checkpoint["current_model_state"]
    result = run.read_result(folder)
    return {
        "log": (folder / "log.jsonl").read_text(),
        "weights": hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest(),
        "average": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "result": {name: result[name] for name in ("top1", "loss", "best", "steps")},
    }


def make_images(folder: Path) -> None:
    """Write two classes of gray images: bright on the left, bright on the right."""
    generator = np.random.default_rng(0)
    for split, count in SPLITS.items():
        for label in (0, 1):
            (folder / split / str(label)).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 128, (8, 8), dtype=np.uint8)
                pixels[:, 4 * label : 4 * label + 4] += 100
                Image.fromarray(pixels).save(folder / split / str(label) / f"{number}.png")


def stop_at_step(number: int) -> None:
    """Let the process receive SIGTERM within an optimizer step."""
    from halonet.training import Classifier

    step = Classifier.training_step

    def training_step(self: Classifier, *arguments: Any) -> torch.Tensor:
        if self.trainer.global_step == number - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    Classifier.training_step = training_step


def limit_files_after(seconds: float) -> None:
    """Let files of this process grow no more."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    signal.signal(signal.SIGALRM, lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, limit)))
    signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main()
