"""`halonet benchmark detector` and `average-precision`, which need the extra `detection`."""

import argparse

from halonet.benchmark import average_precision, detector
from halonet.benchmark.record import make_record
from halonet.benchmark.settings import Settings, check_names
from halonet.models import HALONETS
from halonet.rules import Count, check_arguments
from halonet_cli.run.measuring import check_outputs, make_settings, measure


def run_detector(options: argparse.Namespace) -> None:
    """Time detectors, print the table, write what was asked for."""
    check_outputs(options)
    options.dtype = "float32"
    settings = make_settings(options, options.batch)
    check_names("model", options.backbones, HALONETS)
    record = make_record("detector", {"height": detector.HEIGHT, "width": detector.WIDTH}, settings)
    measure(detector.measure(options.backbones or detector.BACKBONES, settings), record, options)


def run_average_precision(options: argparse.Namespace) -> None:
    """Time average precision, print the table, write what was asked for."""
    check_outputs(options)
    check_arguments(images=(options.images, Count), detections=(options.detections, Count))
    settings = Settings(repeats=options.repeats, threads=1)
    record = make_record("average_precision", {"images": options.images, "detections": options.detections})
    rows = average_precision.measure(options.images, options.detections, settings, both=options.both)
    measure(rows, record, options)
