import pytest

from halonet.benchmark import forms
from halonet.errors import UserError


def groups(models=None, *, accelerate=False, compare=None, compiled=False):
    return forms.make_groups(models, accelerate=accelerate, compare=compare, compiled=compiled)


def test_a_convolutional_network_has_no_bound():
    found = forms.forms_of("resnet50_twin", compiled=True)
    assert [form.label for form in found] == ["resnet50_twin", "resnet50_twin fused"]
    assert not any(form.bound for form in found)


def test_only_halo_networks_are_compiled():
    labels = [form.label for form in forms.forms_of("tiny28", compiled=True) + forms.forms_of("timm/resnet18", True)]
    assert [label for label in labels if "compiled" in label] == ["tiny28 compiled"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["h9"]}, "unknown model 'h9'"),
        ({"compare": "centred"}, "unknown comparison 'centred'. Did you mean 'centered'"),
        ({"models": ["timm/resnet18"], "accelerate": True}, "timm's networks with halo attention"),
        ({"models": ["timm/halonet_h1"], "compare": "centered"}, "unknown model 'timm/halonet_h1'"),
    ],
)
def test_an_unknown_name_or_question_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        groups(**options)


def test_accelerated_networks_run_at_the_size_they_are_made_for():
    asked = groups(["timm/haloregnetz_b", "timm/halonet26t"], accelerate=True)
    assert [group.image_size for group in asked] == [224, 256]
    assert groups(["tiny28"])[0].image_size == 256
