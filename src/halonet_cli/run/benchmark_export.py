"""`halonet benchmark export` and `int8`."""

import argparse
import itertools

from halonet.benchmark.export import measure_export, measure_speed
from halonet.benchmark.int8 import QUESTION, measure_int8
from halonet.benchmark.record import describe_run, join_file, make_record, write_record
from halonet.benchmark.settings import check_names
from halonet.errors import ExportError
from halonet.export import FORMATS
from halonet.models import HALONETS
from halonet.rules import Side, check_arguments
from halonet_cli.run.measuring import check_outputs, make_settings, measure

DEFAULT_FORMATS = ["onnx", "pt2"]  # compiling a network takes minutes


def run_export(options: argparse.Namespace) -> None:
    """Export what the file has no record of, and add each export to it; or time one network."""
    check_outputs(options)
    names = check_names("model", options.models, HALONETS)
    if options.speed:
        check_arguments(image_size=(options.image_size, Side))
        options.dtype = "float32"
        settings = make_settings(options, options.batch)
        record = make_record("export_speed", {"image_size": options.image_size}, settings)
        measure((measure_speed(name, settings, options.image_size) for name in names), record, options)
        return
    record = make_record("export", {})
    done = join_file(record, options.output)["runs"] if options.output is not None else []
    known = {(row["model"], row["format"]) for run in done for row in run["rows"]}
    wanted = list(itertools.product(names, check_names("format", options.formats or DEFAULT_FORMATS, FORMATS)))
    failures = []
    for name, format in (each for each in wanted if each not in known):
        try:
            row = measure_export(name, format)
        except ExportError as error:
            failures.append(f"{name} to {format}")
            print(error, flush=True)
            continue
        sizes = ", ".join(f"{batch} of {rows} x {columns}" for batch, rows, columns in row["verified"])
        print(
            f"{row['model']} to {row['format']}: {row['cpu_seconds']} s of a processor, {row['mebibytes']} MiB, "
            f"verified at {sizes} pixels",
            flush=True,
        )
        if options.output is not None:
            write_record(record, {"provenance": describe_run(options.words), "rows": [row]}, options.output)
    if failures:
        raise ExportError(f"these exports failed, see above: {', '.join(failures)}")


def run_int8(options: argparse.Namespace) -> None:
    """Compare files in float32 and in int8."""
    check_outputs(options)
    options.dtype = "float32"
    settings = make_settings(options, options.batch)
    measure(measure_int8(settings), make_record("int8", QUESTION, settings), options)
