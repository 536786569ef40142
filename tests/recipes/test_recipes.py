"""The packaged recipes against the paper's numbers, repeated here."""

import dataclasses
import functools
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

import halonet
from halonet.data import available_splits
from halonet.recipes.load import task_of
from halonet.recipes.schema import NOT_YET_RUN
from halonet.training import Recipe, list_recipes, resolve

GOLDEN = Path(__file__).parents[1] / "golden/recipes"
# Table A2 and App. D.3: image size, RandAugment magnitude.
FAMILY = {
    "h0": (256, 6),
    "h1": (256, 8),
    "h2": (256, 10),
    "h3": (320, 14),
    "h4": (384, 17),
    "h5": (448, 19),
    "h6": (512, 24),
    "h7": (600, 31),
}
# Table 3: top-1 of HaloNet-50 and of ResNet-50.
COMPONENTS = {
    "baseline": (78.6, 77.6),
    "ls": (79.7, 78.1),
    "ls_ra": (79.9, 78.4),
    "se": (78.6, 78.6),
    "se_silu": (79.0, 78.9),
    "ls_se": (79.7, 78.9),
    "ls_se_silu": (79.9, 79.1),
    "ls_se_silu_ra": (80.5, 79.5),
}
# Table A1: top-1, changed field, its value; parameters in millions as in the columns without squeeze-and-excitation,
# whose ratio is not in the paper.
SCALING: dict[str, tuple[float, str, Any, float]] = {
    "layers_98": (81.4, "layers", 98, 29.6),
    "value_ratio_3": (81.0, "value_ratio", 3.0, 30.6),
    "width_ratio_1_25": (80.9, "width_ratio", 1.25, 27.5),
    "bottleneck_ratio_6_5": (80.6, "bottleneck_ratio", 6.5, 29.7),
    "query_key_ratio_6_5": (80.3, "query_key_ratio", 6.5, 31.9),
}
# Table 4: stages of convolution, top-1.
HYBRIDS = {"h7_c1": ((1,), 84.6), "h7_c12": ((1, 2), 84.7), "h7_c123": ((1, 2, 3), 83.8)}
# Section 5.4: block and halo.
WINDOWS = {"b4_h1": (4, 1), "b8_h0": (8, 0), "b8_h2": (8, 2), "b4_h4": (4, 4)}
# Section 4.6: blocks, where the last stage attends.
DETECTION = {"r50se": None, "r101se": None, "r50se_halo_b8": 8, "r50se_halo_b32": 32, "r101se_halo_b8": 8}
# Section 4.5: top-1 after fine-tuning at 384 and 512 px.
IMAGENET21K = {"h4": (85.6, 85.8), "h4_patch": (85.4, 85.4), "h4_conv12": (85.5, 85.8)}

HALONET50_STUDIES = [
    *(f"imagenet/components/{network}_{parts}" for network in ("halonet50", "resnet50") for parts in COMPONENTS),
    *(f"imagenet/scaling/{name}" for name in SCALING),
    *(f"imagenet/windows/{name}" for name in WINDOWS),
    "imagenet/equivariance",
    "imagenet/absolute_position",
]
LONG_RUNS = [
    *(f"imagenet/{name}" for name in FAMILY),
    *(f"imagenet/hybrids/{name}" for name in HYBRIDS),
    *(f"detection_pretraining/{name}" for name in DETECTION),
]
PRETRAINING_21K = [f"imagenet21k/{name}" for name in IMAGENET21K]
CLASSIFIERS = [name for name in list_recipes() if task_of(name) == "classification" and name != "photos"]
OF_THE_PAPER = [*LONG_RUNS, *HALONET50_STUDIES, *PRETRAINING_21K]

# Values that the paper does not state; label smoothing may be 0.
OURS = ("drop_rate", "crop_pct", "randaugment_num_ops", "momentum", "decay", "label_smoothing", "precision")


@functools.cache
def read(name: str) -> Recipe:
    return resolve(name)


def build(name: str) -> halonet.HaloNet:
    model = read(name).model
    with torch.device("meta"):
        network = halonet.create_model(
            model.name,
            num_classes=model.num_classes,
            in_chans=model.in_chans,
            drop_rate=model.drop_rate,
            drop_path_rate=model.drop_path_rate,
            **model.overrides,
        )
    assert isinstance(network, halonet.HaloNet)
    return network


@functools.cache
def config(name: str) -> halonet.HaloNetConfig:
    return build(name).config


def millions(network: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def test_recipes_in_folders_are_from_the_paper():
    assert sorted(OF_THE_PAPER) == [name for name in CLASSIFIERS if "/" in name and not name.startswith("cifar10/")]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_recipe_builds_its_model_for_its_images(name: str):
    assert config(name).image_size == read(name).data.augmentation.image_size


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_describes_itself_and_its_result(name: str):
    recipe = resolve(name)
    assert recipe.description.endswith(".")
    assert recipe.reproduces
    blanks = [value == NOT_YET_RUN for value in dataclasses.astuple(recipe.provenance)]
    assert all(blanks) or not any(blanks)


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_paper_recipes_share_settings(name: str):
    recipe = read(name)
    assert re.search(r"Table|Fig\.|App\.", recipe.reproduces)
    assert recipe.optimizer.batch_size == 4096
    assert recipe.schedule.final_fraction == 1 / 128
    assert recipe.ema.decay == 0
    assert recipe.data.augmentation.train_crop == "random_resized"
    assert recipe.data.augmentation.random_erasing == recipe.data.augmentation.color_jitter == 0


def test_our_own_choices_are_marked():
    folder = Path(str(resources.files("halonet") / "recipes"))
    files = [folder / "imagenet.yaml", folder / "imagenet21k.yaml", folder / "detection_pretraining.yaml"]
    lines = [line for file in (*files, *folder.glob("imagenet/*.yaml")) for line in file.read_text().splitlines()]
    for key in OURS:
        stated = [line for line in lines if re.search(rf"\b{key}:", line)]
        assert stated, key
        assert [line for line in stated if "# ours" not in line] == []


@pytest.mark.parametrize("name", [name for name in list_recipes() if (GOLDEN / f"{name}.yaml").is_file()])
def test_recipes_have_not_changed(name: str):
    before, now = resolve(GOLDEN / f"{name}.yaml"), resolve(name)
    assert dataclasses.replace(before, provenance=now.provenance) == now


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_test_images_are_not_used_for_choosing(name: str, tmp_path: Path):
    for folder in ("train/class", "val/class"):
        (tmp_path / folder).mkdir(parents=True)
    data = read(name).data
    assert data.validation_split is None
    assert data.test_split == available_splits(str(tmp_path))[-1] == "validation"
    assert data.source == ("data/imagenet21k" if name in PRETRAINING_21K else "data/imagenet")


@pytest.mark.parametrize("name", LONG_RUNS)
def test_long_runs_follow_appendix_d3(name: str):
    recipe = read(name)
    assert recipe.schedule.epochs == 350
    assert recipe.schedule.warmup_epochs == 10
    assert recipe.optimizer.learning_rate == 1.6
    assert recipe.optimizer.weight_decay == 2e-5
    assert recipe.regularization.label_smoothing > 0


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_has_its_sizes_and_magnitudes(name: str):
    recipe = read(f"imagenet/{name}")
    augmentation = recipe.data.augmentation
    assert (augmentation.image_size, augmentation.randaugment_magnitude) == FAMILY[name]
    assert config(f"imagenet/{name}") == halonet.HALONETS[name]
    assert "84.9 %" in recipe.reproduces


def test_regularization_rises_over_the_family():
    models = [read(f"imagenet/{name}").model for name in FAMILY]
    for rates in ([model.drop_rate for model in models], [model.drop_path_rate for model in models]):
        assert rates == sorted(rates)
        assert rates[0] < rates[-1]
    assert models[0].drop_path_rate == 0  # the paper: for the larger models


@pytest.mark.parametrize("name", HYBRIDS)
def test_the_hybrids_are_h7_with_convolutions(name: str):
    stages, top1 = HYBRIDS[name]
    recipe, h7 = read(f"imagenet/hybrids/{name}"), read("imagenet/h7")
    assert f"Table 4; {top1} %" in recipe.reproduces
    assert config(recipe.name) == dataclasses.replace(
        halonet.HALONETS["h7"], convolution_stages=stages, squeeze_excitation_stages=stages
    )
    for section in ("data", "optimizer", "schedule", "regularization"):
        assert getattr(recipe, section) == getattr(h7, section)
    assert (recipe.model.drop_rate, recipe.model.drop_path_rate) == (h7.model.drop_rate, h7.model.drop_path_rate)


@pytest.mark.parametrize("name", HALONET50_STUDIES)
def test_studies_of_halonet50_follow_appendix_d1(name: str):
    recipe = read(name)
    assert recipe.schedule.epochs == 150
    assert recipe.optimizer.learning_rate / recipe.optimizer.batch_size == pytest.approx(0.1 / 256)
    assert recipe.data.augmentation.image_size == 256
    magnitude = recipe.data.augmentation.randaugment_magnitude
    assert (magnitude, recipe.optimizer.weight_decay) in ((10, 4e-5), (0, 8e-5))
    assert recipe.model.drop_rate == recipe.model.drop_path_rate == 0


@pytest.mark.parametrize("parts", COMPONENTS)
@pytest.mark.parametrize(("network", "row"), [("halonet50", "halonet50"), ("resnet50", "resnet50_twin")])
def test_component_recipes_match_their_names(network: str, row: str, parts: str):
    name = f"imagenet/components/{network}_{parts}"
    recipe, words = read(name), parts.split("_")
    assert f"Table 3, {'HaloNet' if network == 'halonet50' else 'ResNet'}-50 " in recipe.reproduces
    assert f"; {COMPONENTS[parts][row == 'resnet50_twin']} % top-1" in recipe.reproduces
    assert (recipe.regularization.label_smoothing > 0) == ("ls" in words)
    assert (recipe.data.augmentation.randaugment_magnitude > 0) == ("ra" in words)
    assert config(name) == dataclasses.replace(
        halonet.HALONETS[row],
        activation="silu" if "silu" in words else "relu",
        squeeze_excitation_stages=(1, 2, 3, 4) if "se" in words else (),
    )


@pytest.mark.parametrize("name", SCALING)
def test_the_scaling_study_changes_one_dimension(name: str):
    top1, dimension, value, size = SCALING[name]
    recipe, base = read(f"imagenet/scaling/{name}"), read("imagenet/components/halonet50_ls_se_silu_ra")
    assert f"Table A1; {top1} %" in recipe.reproduces
    assert getattr(config(recipe.name), dimension) == value
    changed = {"layers": {"depths"}, "width_ratio": {"width_ratio", "num_heads"}}.get(dimension, {dimension})
    assert set(recipe.model.overrides) - set(base.model.overrides) == changed
    assert base.model.overrides.items() <= recipe.model.overrides.items()
    assert recipe.data == base.data
    assert recipe.regularization == base.regularization
    overrides: dict[str, Any] = recipe.model.overrides | {"squeeze_excitation_stages": []}
    with torch.device("meta"):
        assert round(millions(halonet.create_model(recipe.model.name, **overrides)), 1) == size


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("imagenet/equivariance", {"centered": True}),
        ("imagenet/absolute_position", {"position": "absolute"}),
        *(
            (f"imagenet/windows/{name}", dict(zip(("block_size", "halo_size"), WINDOWS[name], strict=True)))
            for name in WINDOWS
        ),
    ],
)
def test_other_studies_change_one_thing(name: str, changes: dict[str, Any]):
    recipe, base = read(name), read("imagenet/components/halonet50_baseline")
    assert config(name) == dataclasses.replace(config(base.name), **changes)
    for section in ("data", "optimizer", "schedule", "regularization"):
        assert getattr(recipe, section) == getattr(base, section)


def test_absolute_positions_name_what_they_lose():
    assert "77.5 %" in read("imagenet/absolute_position").reproduces
    assert "78.6 %" in read("imagenet/absolute_position").reproduces


@pytest.mark.parametrize("name", DETECTION)
def test_detection_backbones_follow_section_4_6(name: str):
    recipe, blocks = read(f"detection_pretraining/{name}"), DETECTION[name]
    augmentation = recipe.data.augmentation
    assert (augmentation.image_size, augmentation.randaugment_magnitude) == (512, 15)
    assert recipe.model.drop_path_rate == 0.1
    row = config(recipe.name)
    assert row == halonet.HALONETS[name]
    assert row.convolution_stages == ((1, 2, 3) if blocks else (1, 2, 3, 4))
    assert blocks in (None, row.block_size)


@pytest.mark.parametrize("name", IMAGENET21K)
def test_imagenet21k_follows_appendix_f(name: str):
    recipe = read(f"imagenet21k/{name}")
    assert config(recipe.name) == halonet.HALONETS[name.replace("h4", "h4_21k")]
    assert recipe.model.num_classes == 21_841
    assert recipe.schedule.epochs == 90
    assert recipe.schedule.warmup_epochs == 2
    assert recipe.optimizer.learning_rate / recipe.optimizer.batch_size == pytest.approx(0.16 / 256)
    assert recipe.optimizer.weight_decay == 8e-5
    assert recipe.data.augmentation.image_size == 256
    assert all(f"{top1} %" in recipe.reproduces for top1 in IMAGENET21K[name])
