import dataclasses
from typing import Any

import pytest
import torch

import halonet
from halonet.benchmark.claims.experiment import experiment_hash
from halonet.benchmark.claims.plan import PLAN as PLAN_FILE, Comparison, Contrast, Plan, read_plan
from halonet.classification.module import Classifier
from halonet.classification.recipe import Recipe
from halonet.errors import UserError
from halonet.models.macs import count_macs
from halonet.recipes.load import derive
from halonet.recipes.yaml_text import parse_yaml
from tests.benchmark.claims.small_plan import TEXT, write_plan

PLAN = read_plan()


def parameters(row: str, plan: Plan = PLAN) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Classifier.of(plan.rows[row].recipe).parameters())


def test_a_row_says_only_what_differs_from_its_base(tmp_path):
    plan = write_plan(tmp_path)
    assert list(plan.rows) == ["halonet", "resnet", "no_halo", "small"]
    assert plan.bases == ("halonet", "resnet")
    overrides = plan.rows["small"].recipe.model.overrides
    assert overrides == plan.rows["halonet"].recipe.model.overrides | {"halo_size": 0, "block_size": 2}
    assert plan.rows["small"].recipe.schedule == plan.rows["halonet"].recipe.schedule
    assert plan.rows["small"].changes == {"model.overrides.block_size": 2}
    assert [plan.rows[name].minutes for name in plan.rows] == [None, None, 2, None]


def test_claims_compare_rows(tmp_path):
    family, windows = write_plan(tmp_path).claims
    assert family.comparisons == (Comparison(row="halonet", base="resnet", effect="higher", paper="+1.0"),)
    assert windows.rows == ("no_halo", "small")
    assert windows.comparisons[1] == Comparison(row="small", base="no_halo", effect="none", paper="the same")
    assert windows.contrasts == (Contrast("both", ("halonet", "no_halo", "resnet", "small"), "higher", "more"),)


def test_runs_are_ordered_bases_first_then_claim_by_claim(tmp_path):
    pairs = [(row.name, seed) for row, seed in write_plan(tmp_path).pairs()]
    assert pairs[:4] == [("halonet", 0), ("halonet", 1), ("halonet", 2), ("resnet", 0)]
    assert pairs[-4:] == [("small", 0), ("small", 1), ("small", 2), ("small", 3)]
    assert len(pairs) == 13


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "set: {model.overrides.halo_size: 0}",
            "set: {model.overrids.halo_size: 0}",
            "row no_halo: unknown key 'model",
        ),
        ("model.overrides.block_size: 2", "model.name: [1]", "row small: .*model.name"),
        ("base: no_halo", "base: no_hallo", "unknown row 'no_hallo'. Did you mean 'no_halo'"),
        ("base: no_halo", "base: small", "row small is its own base"),
        (
            "base: no_halo, seeds: 4",
            "base: no_halo, seeds: 2",
            "claims.windows.rows.small.seeds is 2, but must be from 3 to 10,000",
        ),
        ("base: no_halo, seeds: 4", "base: no_halo, seeds: true", "small.seeds is True, but must be a whole number"),
        ("effect: lower", "effect: less", "no_halo.effect is 'less', but must be higher, lower or none"),
        (
            "base: resnet, effect",
            "base: resnet, measure: top2, effect",
            "claims.family.comparisons.0.measure is 'top2', but must be top1, changed",
        ),
        (
            "of: [halonet, no_halo, resnet, small]",
            "of: [halonet, no_halo, resnet]",
            "contrasts.both.of is .*, but must be a longer list",
        ),
        ("of: [halonet,", "of: [halonett,", "unknown row 'halonett'"),
        ("      small:", "      halonet:", "row halonet is defined twice"),
        (
            "minutes: 2",
            "minute: 2",
            "unknown key 'claims.windows.rows.no_halo.minute'. Did you mean 'claims.windows.rows.no_halo.minutes'",
        ),
        ("variant: CIFAR-10\n", "", "variant is missing"),
        ("absent:", "abscent:", "unknown key 'abscent'. Did you mean 'absent'"),
        ("bases:", "bases: [", "is not valid YAML"),
    ],
)
def test_a_mistake_in_a_plan_is_named(tmp_path, old, new, message):
    assert TEXT.count(old) == 1
    with pytest.raises(UserError, match=message):
        write_plan(tmp_path, TEXT.replace(old, new))


def test_a_plan_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot read plan .*nowhere.yaml: No such file"):
        read_plan(tmp_path / "nowhere.yaml")


def test_halonet_and_its_twins_had_the_same_trials_with_seeds_of_their_own():
    changes: dict[str, list[dict[str, Any]]] = {}
    for trial in parse_yaml(PLAN_FILE.read_text(), "the plan")["trials"]:
        changes.setdefault(trial["row"], []).append(trial.get("set", {}))
        derive(dataclasses.asdict(PLAN.rows[trial["row"]].recipe), trial.get("set", {}), "a trial", Recipe)
        assert trial["seed"] >= 100 > PLAN.rows[trial["row"]].num_seeds
    assert changes["halonet"] == changes["resnet"]
    assert [list(each) for each in changes["halonet"]] == [list(each) for each in changes["resnet_narrow"]]
    assert changes["halonet_few"] == changes["resnet_few"]


def test_every_row_is_another_experiment():
    assert len({experiment_hash(row.recipe) for row in PLAN.rows.values()}) == len(PLAN.rows)


def test_rows_share_images_epochs_and_batch_with_their_base():
    for row in PLAN.rows.values():
        if row.base is not None and row.name not in PLAN.bases:
            base, own = PLAN.rows[row.base].recipe, row.recipe
            assert own.data.train_images == base.data.train_images
            assert own.schedule == base.schedule
            assert own.optimizer == base.optimizer


def test_twins_have_equal_layers_or_equal_parameters():
    halonet_recipe, resnet = (PLAN.rows[name].recipe for name in ("halonet", "resnet"))
    layers = [
        halonet.create_model(recipe.model.name, **recipe.model.overrides).config.layers
        for recipe in (halonet_recipe, resnet)
    ]
    assert layers[0] == layers[1]
    assert parameters("resnet_narrow") == pytest.approx(parameters("halonet"), rel=0.02)


@pytest.mark.parametrize("row", ["deeper", "wider_values", "wider", "wider_outputs", "wider_queries"])
def test_scaled_rows_have_about_1_65_times_the_parameters(row):
    assert parameters(row) / parameters("halonet") == pytest.approx(1.65, rel=0.06)


def test_the_first_map_is_at_least_twice_as_large_as_any_window():
    network = Classifier.of(PLAN.rows["halonet"].recipe).network
    side = (
        network(torch.zeros(1, 3, 32, 32)).shape
        and network.forward_intermediates(torch.zeros(1, 3, 32, 32), indices=[0], intermediates_only=True)[0].shape[2]
    )
    windows = []
    for row in PLAN.claims[[claim.name for claim in PLAN.claims].index("windows")].rows:
        overrides = {"block_size": 4, "halo_size": 1} | PLAN.rows[row].recipe.model.overrides
        windows.append(overrides["block_size"] + 2 * overrides["halo_size"])
    assert sorted(windows) == [4, 6, 8, 8]
    assert side >= 2 * max(windows)


def test_every_row_says_how_long_it_takes_and_none_takes_long():
    minutes = {name: row.minutes for name, row in PLAN.rows.items()}
    assert None not in minutes.values()
    assert max(minutes[name] for name in PLAN.bases) <= 6
    assert max(minutes.values()) <= 18
    hours = sum(row.num_seeds * row.minutes for row in PLAN.rows.values()) / 60
    assert f"together take {hours:.1f} hours" in PLAN_FILE.read_text()


def test_the_costliest_row_computes_at_most_three_times_as_much_as_its_base():
    for row in PLAN.rows.values():
        if row.base is None:
            continue
        macs = [
            count_macs(Classifier.of(each.recipe).network, each.recipe.data.augmentation.image_size).total
            for each in (row, PLAN.rows[row.base])
        ]
        assert macs[0] <= 3 * macs[1], row.name
