import copy
import dataclasses

import pytest
import torch
from timm.layers.halo_attn import HaloAttn
from torch import nn

from halonet.benchmark import model
from halonet.errors import UserError
from tests.benchmark.tiny import SETTINGS


def groups(models=None, accelerate=False, compare=None, compiled=False):
    return model.make_groups(models, accelerate=accelerate, compare=compare, compiled=compiled)


def rows_of(group, tasks=model.TASKS, image_size=28):
    return list(model.measure([group], tasks, [SETTINGS], image_size))


def test_our_networks_run_plain_fused_and_bound():
    (group,) = groups(["tiny28", "timm/resnet18"])
    inference, training = rows_of(group)
    assert set(inference.milliseconds) == {
        "tiny28", "tiny28 fused", "tiny28 bound", "tiny28 fused bound", "timm/resnet18", "timm/resnet18 channels_last",
    }  # fmt: skip
    assert set(training.milliseconds) == {"tiny28", "tiny28 bound", "timm/resnet18", "timm/resnet18 channels_last"}
    assert inference.bounds["tiny28"] == inference.milliseconds["tiny28 bound"][1]
    assert inference.bounds["tiny28 fused"] == inference.milliseconds["tiny28 fused bound"][1]
    assert set(training.bounds) == {"tiny28"}
    assert inference.baseline == training.baseline == "tiny28"
    assert inference.absent == training.absent == {}


def test_a_form_that_computes_something_else_is_refused(monkeypatch):
    fuse = model.halonet.fuse_batch_norm

    def broken(network):
        fused = fuse(network)
        with torch.no_grad():
            fused.classifier.bias.add_(0.1)
        return fused

    monkeypatch.setattr(model.halonet, "fuse_batch_norm", broken)
    (row,) = rows_of(groups(["tiny28"])[0], ["inference"])
    assert "computes something else" in row.absent["tiny28 fused"]
    assert "tiny28 fused" not in row.milliseconds


def test_a_convolutional_network_has_no_bound():
    forms = model.forms_of("resnet50_twin", compiled=True)
    assert [form.label for form in forms] == ["resnet50_twin", "resnet50_twin fused"]
    assert not any(form.bound for form in forms)


def test_halo_networks_are_compiled_if_asked_and_others_are_not():
    labels = [form.label for form in model.forms_of("tiny28", compiled=True) + model.forms_of("timm/resnet18", True)]
    assert [label for label in labels if "compiled" in label] == ["tiny28 compiled"]


def test_accelerated_networks_are_raced_before_after_and_bound_in_both_memory_formats(monkeypatch):
    network = nn.Sequential(nn.Conv2d(3, 16, 1), HaloAttn(16, num_heads=2, block_size=4, halo_size=1))
    monkeypatch.setattr(model, "create_network", lambda name: copy.deepcopy(network))
    (group,) = groups(["timm/tiny"], accelerate=True)
    assert group.baseline == "timm/tiny accelerated"
    (row,) = rows_of(group, ["training"], image_size=8)
    assert set(row.milliseconds) == {
        f"timm/tiny{form}{suffix}" for form in ("", " accelerated", " bound") for suffix in ("", " channels_last")
    }
    assert row.bounds["timm/tiny accelerated"] == row.milliseconds["timm/tiny bound"][1]
    assert row.absent == {}


@pytest.mark.parametrize("compare", model.COMPARISONS)
def test_a_row_is_raced_with_its_other_form(compare):
    (row,) = rows_of(groups(["tiny28"], compare=compare)[0], ["training"])
    ((field, value),) = model.COMPARISONS[compare].items()
    assert list(row.milliseconds) == ["tiny28", f"tiny28 with {field}={value!r}"]


def test_where_timm_refuses_a_size_that_is_listed_and_ours_runs():
    forms = [*model.forms_of("tiny28", False), dataclasses.replace(model.Form("theirs", "timm/halonet26t"))]
    (row,) = rows_of(model.Group("networks", "tiny28", forms), ["inference"], image_size=32)
    assert "tiny28" in row.milliseconds
    assert row.absent["theirs"].startswith("AssertionError")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["h9"]}, "unknown model 'h9'"),
        ({"compare": "centred"}, "unknown comparison 'centred'. Did you mean 'centered'"),
        ({"models": ["timm/resnet18"], "accelerate": True}, "timm's networks with halo attention"),
        ({"models": ["timm/halonet_h1"], "compare": "centered"}, "unknown model 'timm/halonet_h1'"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        groups(**options)


def test_an_impossible_image_is_refused():
    with pytest.raises(UserError, match="--image-size is 0; it must be at least 1"):
        rows_of(groups(["tiny28"])[0], image_size=0)


def test_a_step_for_the_memory_begins_without_gradients():
    step = model.prepare(SETTINGS, name="tiny28", image_size=28, training=True)
    assert step() is None


def test_memory_is_measured_for_each_network(monkeypatch):
    asked = []
    monkeypatch.setattr(
        model, "peak_mebibytes", lambda prepare, settings, **rest: asked.append(rest) or float(len(asked))
    )
    row = model.measure_memory(["tiny28", "timm/resnet18"], "training", SETTINGS, 28)
    assert row.mebibytes == {"tiny28": 1, "timm/resnet18": 2}
    assert asked[0] == {"name": "tiny28", "image_size": 28, "training": True}
