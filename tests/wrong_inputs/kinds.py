"""All kinds of wrong inputs."""

from collections.abc import Callable
from random import Random

from tests.wrong_inputs.calls import make_config, make_model, make_use
from tests.wrong_inputs.case import Case
from tests.wrong_inputs.checkpoints import make_checkpoint
from tests.wrong_inputs.class_folders import make_class_folder
from tests.wrong_inputs.coco_files import make_coco_file
from tests.wrong_inputs.coco_folders import make_coco_folder
from tests.wrong_inputs.command_lines import make_command_line
from tests.wrong_inputs.detectors import make_detector
from tests.wrong_inputs.recipes import make_override, make_recipe

KINDS: dict[str, Callable[[Random], Case]] = {
    "recipe": make_recipe,
    "override": make_override,
    "checkpoint": make_checkpoint,
    "detector": make_detector,
    "coco": make_coco_file,
    "coco_folder": make_coco_folder,
    "class_folder": make_class_folder,
    "command_line": make_command_line,
    "config": make_config,
    "model": make_model,
    "use": make_use,
}


def make_cases(kind: str, seed: int, count: int) -> list[Case]:
    """The first cases of a seed; those of one kind do not depend on the other kinds."""
    random = Random(f"{kind} {seed}")
    return [KINDS[kind](random) for _ in range(count)]
