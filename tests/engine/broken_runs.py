"""Break small trainings in every way that a machine can, and check that they lose nothing and report what happened.

    python -m tests.engine.broken_runs --kills 20 --double-resumes 5 --damages 12 --full-disks 9

Each training is forked from this process, which has already imported everything. A broken training is continued by the
command that began it, with `--resume-or-start`, and must end with exactly the files of an uninterrupted one.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from halonet.engine.lock import LOCK_FILE
from halonet.training import to_yaml
from tests.engine.processes import command, end, send, traces
from tests.engine.tiny import make_images, tiny_recipe

LIMIT = 1000  # bytes per file when the disk is full: enough for stderr
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
    """An uninterrupted training, and broken ones that are compared with it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.recipe = folder / "tiny.yaml"
        self.recipe.write_text(to_yaml(tiny_recipe(make_images(folder / "data"))))
        begin = time.monotonic()
        self.check(self.train("alone"), 0, [])
        self.seconds = time.monotonic() - begin
        self.expected = traces(folder / "alone")
        print(f"an uninterrupted training takes {self.seconds:.1f} s", flush=True)

    def kill(self, count: int) -> None:
        """Kill at random moments, each run up to three times."""
        met = tried = 0
        while met < count:
            tried += 1
            assert tried <= 5 * count, "the moments come after the end"
            name = f"killed {met // 3}"
            child = self.begin(name)
            time.sleep(random.uniform(0, self.seconds))
            os.kill(child, signal.SIGKILL)
            killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
            met += killed
            if not killed or met % 3 == 0 or met == count:
                self.end_well(name)
        print(f"{count} kills: all ended with exactly the files of the uninterrupted run", flush=True)

    def resume_twice(self, count: int) -> None:
        """Resume a run that is already being resumed."""
        for number in range(count):
            name = f"twice {number}"
            child = self.begin(name)
            lock = self.folder / name / LOCK_FILE
            while not (lock.exists() and lock.read_text()):
                time.sleep(0.01)
            self.check(self.train(name, errors="stderr of the second"), 2, [f"is in use by process {child}"])
            self.check(end(child, self.folder / "stderr"), 0, [])
            self.end_well(name)
        print(f"{count} double resumes: each second one was refused with the first one's process id", flush=True)

    def damage(self, count: int) -> None:
        """Damage the last checkpoint of a stopped run: flip bytes, cut it short, empty it."""
        if not count:
            return
        stopped = self.train("stopped", lambda: send([signal.SIGTERM], "micro-batch 17", False))
        self.check(stopped, 143, ["SIGTERM after step 17, which is saved"])
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
        print(f"{count} damaged checkpoints: each was reported, and the previous one used", flush=True)

    def fill_disk(self, count: int) -> None:
        """Limit the size of files from a random moment on."""
        met = tried = 0
        while met < count:
            tried += 1
            assert tried <= 5 * count, "the moments come after the last file"
            name = f"full {tried}"
            moment = random.uniform(0.1, 0.8) * self.seconds
            found = self.train(name, lambda moment=moment: limit_files_after(moment))
            if found["status"]:
                self.check(found, 2, ["no space left to write", "make room, then "])
                met += 1
            self.end_well(name)
        print(f"{count} full disks: each was reported, and the run continued", flush=True)

    def begin(self, name: str, prepare: Prepare = lambda: None, errors: str = "stderr") -> int:
        """Start a training in its own process; return its process id."""
        words = ["train", str(self.recipe), "--resume-or-start", "--run-dir", str(self.folder / name)]
        return command(words, self.folder / errors, prepare)

    def train(self, name: str, prepare: Prepare = lambda: None, errors: str = "stderr") -> dict[str, Any]:
        """Train to the end; return the exit status and the lines on stderr."""
        return end(self.begin(name, prepare, errors), self.folder / errors)

    def end_well(self, name: str) -> None:
        """Continue a run, and expect the end of the uninterrupted one."""
        self.check(self.train(name), 0, [])
        found = traces(self.folder / name)
        assert found == self.expected, [key for key, value in found.items() if value != self.expected[key]]
        assert not list((self.folder / name).rglob(".*"))
        shutil.rmtree(self.folder / name)

    def check(self, found: dict[str, Any], status: int, words: list[str]) -> None:
        """Expect an exit status, and one line with these words, or no line."""
        assert found["status"] == status, found
        assert len(found["said"]) == bool(words), found
        assert all(each in found["said"][0] for each in words), found


def limit_files_after(seconds: float) -> None:
    """Limit the size of files in this process after some seconds."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    signal.signal(signal.SIGALRM, lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, limit)))
    signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main()
