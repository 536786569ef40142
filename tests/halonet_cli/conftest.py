"""What tests of the commands share with those of what the commands run."""

from tests.detection.conftest import box_scenes, finished_run, scenes  # noqa: F401
