"""Wrong recipes, as files and as overrides of the command line."""

import copy
from pathlib import Path
from random import Random
from typing import Any

import yaml

from halonet.training import resolve
from tests.wrong_inputs.case import Case, pick, shortened
from tests.wrong_inputs.fields import FIELDS, RECIPE, REQUIRED, SECTIONS, UNKNOWN, put, remove

BOMB = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(9))
TEXTS = {
    "a: [1": "not valid YAML",
    "a: 1\na: 2": "key 'a' stands there twice",
    "[1, 2]": "holds no keys",
    "": "holds no keys",
    "a: !!python/object/apply:os.system [ls]": "not valid YAML",
    "a: !!int x": "not valid YAML",
    "a: &a [*a]": "an alias stands for what holds it",
    "a: " + "[" * 1000 + "]" * 1000: "nested over 32 deep",
    "x: 1\n" * 50_000: "over 200,000 letters",
    BOMB: "its aliases written out",
    "a: \0": "not valid YAML",
    "task: juggling": "recipe of juggling",
    "base: 3": "base is 3, but must be the name of a recipe",
    "base: imagenet/h9": "unknown base 'imagenet/h9'. Did you mean",
    "base: gone.yaml": "but there is no such file",
    "base: mine.yaml": "is its own base",
    "base: imagenet/h0\nvariations: {a: {}}": "has variations, which only recipes of the package have",
    "base: detection/r50se\ntask: classification": "is one for detection",
}


def make_recipe(random: Random) -> Case:
    """A recipe file with one mistake, or none."""
    values: dict[str, Any] = copy.deepcopy(RECIPE)
    way = random.choices(("value", "missing", "unknown", "section", "text"), weights=(12, 1, 1, 1, 2))[0]
    if way == "text":
        written, words = random.choice(list(TEXTS.items()))
        return Case(f"text {shortened(written)}", lambda folder: _resolve(folder, written), ("mine.yaml", words))
    if way == "missing":
        key, expected = random.choice(REQUIRED), ("is missing",)
        remove(values, key)
        text = f"no {key}"
    elif way == "unknown":
        key, meant = random.choice(list(UNKNOWN.items()))
        put(values, key, 1)
        text, expected = f"{key}: 1", (f"unknown key '{key}'. Did you mean '{meant}'?",)
    elif way == "section":
        key = random.choice(SECTIONS)
        value = random.choice([3, "x", [1], True])
        put(values, key, value)
        text, expected = f"{key}: {value}", (f"{key} is", "but must be a section with keys of its own")
    else:
        key, value, expected = pick(random, FIELDS)
        put(values, key, value)
        text = f"{key}: {shortened(value)}"
    key_part = (key,) if expected else ()
    written = yaml.safe_dump(values, sort_keys=random.random() < 0.5)
    return Case(text, lambda folder: _resolve(folder, written), (*key_part, *expected))


def make_override(random: Random) -> Case:
    """An override on the command line with one mistake, or none."""
    # Command-line arguments are text, which is valid where a recipe expects text.
    fields = {key: each for key, each in FIELDS.items() if not each.is_text or key.startswith("model.overrides.")}
    key, value, expected = pick(random, fields)
    written = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
    if random.random() < 0.1:
        key, meant = random.choice(list(UNKNOWN.items()))
        expected = (f"unknown key '{key}'. Did you mean '{meant}'?",)
    spelled = key.replace("_", "-") if random.random() < 0.3 else key
    words = random.choice([[f"--{spelled}={written}"], [f"{spelled}={written}"], [f"--{spelled}", written]])
    words += ["optimizer.learning_rate=0.1"] if key == "optimizer.batch_size" else []
    return Case(" ".join(words)[:100], lambda folder: _resolve(folder, yaml.safe_dump(RECIPE), words), expected)


def _resolve(folder: Path, text: str, overrides: list[str] = ()) -> None:  # pyright: ignore[reportArgumentType]
    (folder / "mine.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    resolve(folder / "mine.yaml", list(overrides))
