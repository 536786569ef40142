"""`halonet predict`."""

import argparse
import csv
import sys
from pathlib import Path

from halonet.classification.prediction import MapChoice, check_map_choice, predict, save_maps
from halonet.data import find_images
from halonet.engine.files import check_output_folder
from halonet_cli.console import print_json, print_table, printable, tell_unreadable


def run_predict(options: argparse.Namespace) -> int:
    """Label, draw if asked, and print; the status is 1 if some images could not be read."""
    if options.save_maps is not None:
        check_output_folder(options.save_maps)
    choice = None
    if (options.layer, options.head, options.pixel) != (None, None, None):
        choice = MapChoice(options.layer, options.head, options.pixel and tuple(options.pixel))
        check_map_choice(options.checkpoint, choice)
    files = find_images([Path(options.root or "", image) for image in options.images])
    all_rows = predict(options.checkpoint, files, options.top_k, batch_size=options.batch_size, device=options.device)
    rows = [row for row in all_rows if "error" not in row]
    if options.save_maps is not None:
        for row, path in zip(rows, save_maps(options.checkpoint, rows, options.save_maps, choice), strict=True):
            row["map"] = str(path)
    if options.json:
        print_json(all_rows)
    elif options.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["file", "rank", "label", "probability"])
        for row in rows:
            for rank, guess in enumerate(row["top"], 1):
                cells = [printable(row["file"]), rank, printable(guess["label"]), f"{guess['probability']:.6f}"]
                writer.writerow(cells)
    elif rows:
        print_table(
            ["file", *(f"guess {rank + 1}" for rank in range(len(rows[0]["top"])))],
            [
                [row["file"], *(f"{guess['label']} {100 * guess['probability']:.1f} %" for guess in row["top"])]
                for row in rows
            ],
        )
        if options.save_maps is not None:
            print(f"attention maps written to {options.save_maps}")
    return tell_unreadable(all_rows)
