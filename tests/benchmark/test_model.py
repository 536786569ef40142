import copy
import dataclasses
import types

import pytest
import torch
from timm.layers.halo_attn import HaloAttn
from torch import nn

from halonet.benchmark import forms, model
from halonet.benchmark.networks import create_network
from halonet.benchmark.peers import relative_error
from halonet.errors import UserError
from tests.benchmark.tiny import SETTINGS


def groups(models=None, accelerate=False, compare=None, compiled=False):
    return forms.make_groups(models, accelerate=accelerate, compare=compare, compiled=compiled)


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


def test_a_form_with_wrong_logits_is_refused(monkeypatch):
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


@pytest.mark.parametrize(("dtype", "stored"), [("float64", torch.float64), ("bfloat16", torch.float32)])
def test_half_precision_is_left_to_autocast(dtype, stored):
    settings = dataclasses.replace(SETTINGS, dtype=dtype)
    logits, step = model.prepare_form(forms.Form("tiny28", "tiny28"), settings, 28, training=True)
    assert logits.dtype == settings.torch_dtype
    assert step() is None
    assert {each.dtype for each in model.build(forms.Form("tiny28", "tiny28"), settings).parameters()} == {stored}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_forms_agree_in_every_dtype(dtype):
    (group,) = groups(["tiny28", "timm/test_resnet"])
    (row,) = model.measure([group], ["inference"], [dataclasses.replace(SETTINGS, dtype=dtype)], 28)
    assert row.absent == {}


def test_the_logits_in_half_precision_are_those_of_autocast():
    settings = dataclasses.replace(SETTINGS, dtype="bfloat16")
    form = forms.Form("tiny28", "tiny28")
    logits, _ = model.prepare_form(form, settings, 28, training=False)
    images = model.draw_images(settings, 28)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.build(form, settings)(images), logits)


PLAIN = forms.Form("tiny28", "tiny28")
FUSED = forms.Form("fused", "tiny28", fused=True, same_as="tiny28")


def agreement_of(dtype):
    """What has seen the plain network, and its logits."""
    settings = dataclasses.replace(SETTINGS, dtype=dtype)
    agreement = model.LogitChecks(settings, 28)
    logits, _ = model.prepare_form(PLAIN, settings, 28, training=False)
    agreement.check(PLAIN, logits)
    return agreement, logits


@pytest.mark.parametrize(("dtype", "allowed"), [("float64", 1e-10), ("float32", 1e-4)])
def test_logits_agree_within_the_tolerance(dtype, allowed):
    agreement, logits = agreement_of(dtype)
    agreement.check(FUSED, logits * (1 + 0.9 * allowed))
    with pytest.raises(ValueError, match="something else"):
        agreement.check(FUSED, logits * (1 + 1.2 * allowed))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits_in_half_precision_may_differ_by_a_multiple_of_rounding(dtype):
    agreement, logits = agreement_of(dtype)
    exact, _ = model.prepare_form(PLAIN, dataclasses.replace(SETTINGS, dtype="float64"), 28, training=False)
    allowed = model.ROUNDING_FACTOR * relative_error(logits, exact)
    assert model.LOGIT_TOLERANCE < allowed < 0.03
    agreement.check(FUSED, logits.double() * (1 + 0.9 * allowed))
    with pytest.raises(ValueError, match="something else"):
        agreement.check(FUSED, logits.double() * (1 + 1.1 * allowed))
    with model.attention_replaced_by_values():
        (wrong, _) = model.prepare_form(PLAIN, dataclasses.replace(SETTINGS, dtype=dtype), 28, training=False)
    with pytest.raises(ValueError, match="something else"):
        agreement.check(FUSED, wrong)


def test_a_form_without_its_plain_form_says_so():
    with pytest.raises(ValueError, match="tiny28, whose logits it must give, was left out"):
        model.LogitChecks(SETTINGS, 28).check(FUSED, torch.ones(2, 10))


def test_networks_and_images_are_made_on_the_device(monkeypatch):
    settings = dataclasses.replace(SETTINGS, device="meta")
    made_on = set()

    def watched(name):
        network = create_network(name)
        made_on.update(each.device.type for each in network.parameters())
        return network

    monkeypatch.setattr(model, "create_network", watched)
    network = model.build(PLAIN, settings)
    assert made_on == {"meta"}, "not even at first on a CPU"
    assert all(each.is_meta for each in (*network.parameters(), *network.buffers()))
    asked = []
    unseeded = types.SimpleNamespace(manual_seed=lambda number: None)
    monkeypatch.setattr(torch, "Generator", lambda device: asked.append(device) or unseeded)
    assert model.draw_images(settings, 28).is_meta
    assert asked == ["meta"]


def test_channels_last_forms_have_such_images_and_weights(monkeypatch):
    seen = []
    build = model.build

    def watched(form, settings):
        network = build(form, settings)
        network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        seen.extend(each for each in network.parameters() if each.dim() == 4)
        return network

    monkeypatch.setattr(model, "build", watched)
    form = forms.Form("last", "timm/test_resnet", channels_last=True)
    model.prepare_form(form, dataclasses.replace(SETTINGS, dtype="bfloat16"), 28, training=False)
    assert seen[-1].shape == (2, 3, 28, 28)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in seen)


def test_accelerated_networks_run_before_after_and_bound_in_both_memory_formats(monkeypatch):
    network = nn.Sequential(nn.Conv2d(3, 16, 1), HaloAttn(16, num_heads=2, block_size=4, halo_size=1))
    for module in (forms, model):
        monkeypatch.setattr(module, "create_network", lambda name: copy.deepcopy(network))
    (group,) = groups(["timm/tiny"], accelerate=True)
    assert group.baseline == "timm/tiny accelerated"
    (row,) = rows_of(group, ["training"], image_size=8)
    assert set(row.milliseconds) == {
        f"timm/tiny{form}{suffix}" for form in ("", " accelerated", " bound") for suffix in ("", " channels_last")
    }
    assert row.bounds["timm/tiny accelerated"] == row.milliseconds["timm/tiny bound"][1]
    assert row.absent == {}


@pytest.mark.parametrize("compare", forms.COMPARISONS)
def test_a_row_runs_with_its_other_form(compare):
    (row,) = rows_of(groups(["tiny28"], compare=compare)[0], ["training"])
    ((field, value),) = forms.COMPARISONS[compare].items()
    assert list(row.milliseconds) == ["tiny28", f"tiny28 with {field}={value!r}"]


def test_a_size_that_timm_refuses_is_listed_and_ours_runs():
    chosen = [*forms.forms_of("tiny28", False), dataclasses.replace(forms.Form("theirs", "timm/halonet26t"))]
    (row,) = rows_of(forms.Group("networks", "tiny28", chosen), ["inference"], image_size=32)
    assert "tiny28" in row.milliseconds
    assert row.absent["theirs"].startswith("AssertionError")


def test_an_impossible_image_is_refused():
    with pytest.raises(UserError, match="--image-size is 0, but must be at least 1"):
        rows_of(groups(["tiny28"])[0], image_size=0)


def test_a_step_for_the_memory_begins_without_gradients():
    step = model.prepare(SETTINGS, name="tiny28", image_size=28, training=True)
    assert step() is None


def test_memory_is_measured_for_each_network(monkeypatch):
    asked = []
    monkeypatch.setattr(
        model, "peak_mebibytes", lambda prepare, settings, **rest: asked.append(rest) or float(len(asked))
    )
    (row,) = model.measure_memory(["tiny28", "timm/resnet18"], "training", SETTINGS, 28)
    assert row.mebibytes == {"tiny28": 1, "timm/resnet18": 2}
    assert asked[0] == {"name": "tiny28", "image_size": 28, "training": True}
