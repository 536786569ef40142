"""Suggestions for unknown names."""

import difflib
from collections.abc import Iterable

LONGEST_NAME = 100  # letters of a wrong name that a message repeats

# Names that other programs use, and ours; the first one that the command has is suggested.
OTHER_NAMES = {
    "amp": ["precision"],
    "arch": ["model.name"],
    "batch": ["batch_size"],
    "bf16": ["precision"],
    "bs": ["batch_size"],
    "checkpoint_dir": ["run_dir", "checkpoint"],
    "ckpt": ["checkpoint", "resume"],
    "config": ["recipe"],
    "continue": ["resume"],
    "data": ["data.source"],
    "data_dir": ["data", "data.source"],
    "data_path": ["data", "data.source"],
    "dataset": ["data", "data.source"],
    "device": ["accelerator"],
    "fp16": ["precision"],
    "gpu": ["devices", "device"],
    "gpus": ["devices", "device"],
    "grad_clip": ["clip_gradient"],
    "image": ["images"],
    "img_size": ["image_size"],
    "input": ["images"],
    "input_size": ["image_size"],
    "iterations": ["steps"],
    "iters": ["steps"],
    "lr": ["learning_rate"],
    "max_epochs": ["epochs"],
    "model": ["models", "checkpoint", "model.name"],
    "num_epochs": ["epochs"],
    "num_gpus": ["devices"],
    "num_workers": ["workers"],
    "out": ["output", "run_dir", "results", "save_maps", "file"],
    "output": ["run_dir", "results", "save_maps", "file"],
    "output_dir": ["output", "run_dir", "pictures", "save_maps", "file"],
    "pretrained": ["init", "checkpoint"],
    "save": ["output", "results", "save_maps", "run_dir"],
    "save_dir": ["run_dir", "pictures", "save_maps"],
    "size": ["sizes", "image_size"],
    "smoothing": ["label_smoothing"],
    "threshold": ["min_score", "score_threshold"],
    "topk": ["top_k"],
    "warmup": ["warmup_epochs", "warmup_steps"],
    "wd": ["weight_decay"],
    "weights": ["checkpoint", "init"],
}


def unknown_name(kind: str, name: str, known: Iterable[str], more: str = "") -> str:
    """Say that there is no such name, with the nearest that there is.

    `more` says where to find the names; if it is empty, all are listed.
    """
    names = list(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {name[:LONGEST_NAME]!r}.{hint} " + (more or f"Known: {', '.join(names)}.")


def meant_flag(flag: str, flags: Iterable[str], fields: Iterable[str]) -> str:
    """Guess which flag the user meant, or how to say it without one; empty if nothing is near.

    Args:
        flag: What the user wrote, such as "--lr".
        flags: The flags of the command, and the names of what is given without a flag.
        fields: Dotted keys of the recipes that the command takes as flags.
    """
    by_name = {field.rpartition(".")[2]: spell(field) for field in reversed(list(fields))}
    by_name |= {field: spell(field) for field in fields}
    for word in flags:
        is_flag = word.startswith("-")
        by_name[word.lstrip("-").replace("-", "_")] = word if is_flag else f"{word.upper()}, without a flag"
    name = flag.lstrip("-").replace("-", "_").lower()
    for wanted in (name, *OTHER_NAMES.get(name, ())):
        if wanted in by_name:
            return by_name[wanted]
    nearest = difflib.get_close_matches(name, by_name, n=1, cutoff=0.7)
    return by_name[nearest[0]] if nearest else ""


def spell(field: str) -> str:
    """Write a recipe's field as a flag."""
    return "--" + field.replace("_", "-")
