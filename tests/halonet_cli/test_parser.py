import pytest

from halonet_cli.hints import OTHER_NAMES
from halonet_cli.main import make_parser, parse
from halonet_cli.parser import UsageError
from halonet_cli.recipe_check import fields_of


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["trian"],
            "unknown command 'trian'. Did you mean 'train'? Known: train, evaluate, predict, export, info, recipes",
        ),
        (
            ["detect", "eval"],
            "unknown command 'eval'. Did you mean 'evaluate'? Known: train, evaluate, predict",
        ),
        (["exports", "a", "b"], "unknown command 'exports'. Did you mean 'export'? Known: train, evaluate"),
        ([], "give a command: train, evaluate, predict, export, info, recipes, detect, demo, benchmark (see halonet"),
        (
            ["benchmark"],
            "give a command: all, operator, model, memory, detector, average-precision, export, int8, triton, tune",
        ),
        (["train", "--epochs", "3"], "unknown flag '--epochs'. Did you mean --schedule.epochs? (see halonet train --"),
        (["train", "--epochs=3"], "unknown flag '--epochs'. Did you mean --schedule.epochs?"),
        (["train", "--lr", "1"], "Did you mean --optimizer.learning-rate?"),
        (["train", "--learning-rate", "1"], "Did you mean --optimizer.learning-rate?"),
        (["train", "--batch-size", "1"], "Did you mean --optimizer.batch-size?"),
        (["train", "--batch_size", "1"], "Did you mean --optimizer.batch-size?"),
        (["train", "--seed", "1"], "Did you mean --engine.seed?"),
        (["train", "--gpus", "1"], "Did you mean --engine.devices?"),
        (["train", "--device", "cuda"], "Did you mean --engine.accelerator?"),
        (["train", "--output", "a"], "Did you mean --run-dir?"),
        (["train", "--data", "a"], "Did you mean --data.source?"),
        (["train", "--model", "h0"], "Did you mean --model.name?"),
        (["train", "--config", "a.yaml"], "Did you mean RECIPE, without a flag?"),
        (["train", "--weights", "a"], "unknown flag '--weights' (see halonet train --help)"),
        (["detect", "train", "--weights", "a"], "Did you mean --init?"),
        (["detect", "train", "--epochs", "3"], "unknown flag '--epochs' (see halonet detect train --help)"),
        (["detect", "train", "--lr", "3"], "Did you mean --optimizer.learning-rate?"),
        (["evaluate", "a", "--batchsize", "3"], "Did you mean --batch-size?"),
        (["evaluate", "--checkpoint", "a"], "Did you mean CHECKPOINT, without a flag?"),
        (["detect", "predict", "a", "b", "--threshold", "1"], "Did you mean --min-score?"),
        (["info", "--nothing-like-it"], "unknown flag '--nothing-like-it' (see halonet info --help)"),
        (["train", "a", "b"], "unexpected argument 'b' (see halonet train --help)"),
        (["evaluate"], "the following arguments are required: checkpoint (see halonet evaluate --help)"),
        (["evaluate", "a", "--batch-size", "many"], "--batch-size: 'many' is not a whole number (see halonet evaluate"),
        (["detect", "predict", "a", "b", "--min-score", "x"], "--min-score: 'x' is not a number (see halonet detect"),
        (
            ["train", "--resume", "x" * 5_000],
            "x holds no run to resume: it has no recipe.yaml; start one with --run-dir",
        ),
        (["evaluate", "x" * 5_000], "there is no checkpoint xxx"),
        (["train", "--schedule.epochs"], "--schedule.epochs has no value: write --schedule.epochs=VALUE"),
    ],
)
def test_a_mistake_comes_with_a_hint(words, message):
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "recipe", "changes"),
    [
        (["train", "--schedule.epochs", "3"], "fashion_mnist", ["schedule.epochs=3"]),
        (["train", "photos", "--ema.decay=1", "data.hold-out=2"], "photos", ["ema.decay=1", "data.hold_out=2"]),
        (["train", "--data.source", "a=b"], "fashion_mnist", ["data.source=a=b"]),
        (["train", "--data.source="], "fashion_mnist", ["data.source="]),
        (["train", "imagenet/h0", "--run-dir", "runs/a.b"], "imagenet/h0", []),
        (["detect", "train", "--schedule.steps", "3", "--init", "a"], "detection/nuclei", ["schedule.steps=3"]),
    ],
)
def test_recipe_fields_are_separated_from_other_arguments(words, recipe, changes):
    options = parse(words)
    assert (options.recipe, options.changes) == (recipe, changes)


def test_only_training_takes_recipe_fields():
    with pytest.raises(UsageError, match="unexpected argument 'a.b=1'|does not exist"):
        parse(["evaluate", __file__, "a.b=1"])
    with pytest.raises(UsageError, match="unknown flag '--engine.seed'"):
        parse(["evaluate", __file__, "--engine.seed", "1"])
    assert parse(["predict", __file__, __file__, "--data.root", "/"]).changes == []


def test_every_hint_names_an_existing_flag():
    def names(parser):
        yield from (word.lstrip("-").replace("-", "_") for word in parser.flags())
        for field in fields_of(parser.task) if parser.task else ():
            yield from (field, field.rpartition(".")[2])
        for command in parser.commands.values():
            yield from names(command)

    assert {name for meant in OTHER_NAMES.values() for name in meant} <= set(names(make_parser()))
