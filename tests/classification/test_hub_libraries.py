"""What users of timm and transformers do with a folder: from the Hub's cache, fine-tuned, with changed networks."""

import json
import shutil

import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf
from transformers import AutoModel, AutoModelForImageClassification, TimmWrapperConfig, pipeline

import halonet
from halonet.classification.hub import save_to_hub_folder
from halonet.engine.weights import describe, save_weights
from halonet.errors import UserError
from halonet.training import load_checkpoint

PICTURE = Image.radial_gradient("L").convert("RGB")
COMMIT = "a" * 40
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


@pytest.fixture(scope="module")
def own():
    return halonet.load("mini32.cifar10")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_to_hub_folder("mini32.cifar10", tmp_path_factory.mktemp("hub") / "cifar10")


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A network with overrides and another preprocessing, as a folder."""
    place = tmp_path_factory.mktemp("changed")
    torch.manual_seed(0)
    network = halonet.create_model("micro32", num_classes=3, centered=True, border="zeros", depths=(1, 2, 1))
    prepared = {"image_size": 30, "crop_pct": 0.875, "interpolation": "bilinear", "in_chans": 3}
    prepared |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}
    names = ["a/b", "für|x", "c d"]
    save_weights(
        place / "x.safetensors",
        network.state_dict(),
        describe(network) | {"class_names": names, "preprocessing": prepared},
    )
    return save_to_hub_folder(place / "x.safetensors", place / "folder")


@pytest.fixture(scope="module")
def cache(folder, tmp_path_factory):
    """The Hub's cache after somebody downloaded the folder as the repository me/cifar10."""
    root = tmp_path_factory.mktemp("cache")
    repository = root / "models--me--cifar10"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return root


def images(trained):
    return trained.transform(PICTURE)[None]


def test_timm_reads_a_repository_of_the_hub(cache, own):
    model = timm.create_model(f"hf-hub:me/cifar10@{COMMIT}", pretrained=True, cache_dir=cache).eval()
    assert torch.equal(model(images(own)), own.model(images(own)))
    assert list(model.pretrained_cfg["label_names"]) == own.labels


def test_transformers_reads_a_repository_of_the_hub(cache, own):
    offline = {"cache_dir": cache, "local_files_only": True}
    model = AutoModelForImageClassification.from_pretrained("me/cifar10", **offline).eval()
    assert torch.allclose(model(images(own)).logits, own.model(images(own)), atol=1e-5)
    assert list(model.config.id2label.values()) == own.labels


@pytest.mark.parametrize("size", [(300, 200), (31, 77), (20, 20), (500, 33)])
@pytest.mark.parametrize("which", ["folder", "changed"])
def test_timm_prepares_pictures_of_any_shape_as_we_do(request, which, size):
    path = request.getfixturevalue(which)
    model = timm.create_model(f"local-dir:{path}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    picture = PICTURE.resize(size)
    assert torch.allclose(transform(picture), halonet.load(path).transform(picture), atol=1e-6)


def test_a_changed_network_is_the_same_function_in_transformers(changed):
    own = halonet.load(changed)
    model = AutoModelForImageClassification.from_pretrained(changed).eval()
    assert model.timm_model.config == own.model.config
    assert own.model.config.centered
    assert torch.allclose(model(images(own)).logits, own.model(images(own)), atol=1e-6)
    guesses = {
        guess["label"]: guess["score"] for guess in pipeline("image-classification", model=str(changed))(PICTURE)
    }
    expected = dict(zip(own.labels, own.model(images(own)).softmax(1)[0].tolist(), strict=True))
    assert guesses == pytest.approx(expected, abs=1e-6)


def test_timm_adapts_a_folder_to_other_classes_channels_and_to_features(folder, own):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=4, in_chans=1).eval()
    assert model(torch.randn(2, 1, 33, 40)).shape == (2, 4)
    assert torch.allclose(model.stem.conv.weight, own.model.stem.conv.weight.sum(1, keepdim=True), atol=1e-5)
    features = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True, out_indices=(1, 3)).eval()
    expected = own.model.forward_intermediates(images(own), indices=[1, 3], intermediates_only=True)
    assert [torch.equal(*pair) for pair in zip(features(images(own)), expected, strict=True)] == [True, True]


def test_transformers_model_without_a_classifier_gives_our_features(folder, own):
    model = AutoModel.from_pretrained(folder).eval()
    output = model(images(own), output_hidden_states=True)
    maps = own.model.forward_features(images(own))
    assert torch.allclose(output.last_hidden_state, maps, atol=1e-5)
    assert torch.allclose(output.pooler_output, own.model.forward_head(maps, pre_logits=True), atol=1e-5)
    assert [tuple(each.shape[1:]) for each in output.hidden_states] == [
        (32, 16, 16),
        (64, 16, 16),
        (128, 8, 8),
        (256, 4, 4),
    ]


def test_a_network_fine_tuned_with_timm_comes_back(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("halonet_paper_mini32.cifar10", pretrained=True)
    model.reset_classifier(2)
    save_for_hf(model, str(tmp_path), {"label_names": ["cat", "dog"]}, safe_serialization=True)
    own = halonet.load(tmp_path)
    assert own.labels == ["cat", "dog"]
    assert torch.equal(own.model(images(own)), model.eval()(images(own)))


def fine_tune(folder, labels, to):
    """Fine-tune as transformers documents it, and save."""
    id2label = dict(enumerate(labels))
    label2id = {label: number for number, label in id2label.items()}
    named = {"num_labels": len(labels), "id2label": id2label, "label2id": label2id}
    model = AutoModelForImageClassification.from_pretrained(folder, ignore_mismatched_sizes=True, **named)
    model(torch.randn(4, 3, 32, 32), labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    model.save_pretrained(to)
    return model.eval()


@pytest.mark.parametrize("labels", [["cat", "dog"], [f"new {number}" for number in range(10)]], ids=len)
def test_a_network_fine_tuned_with_transformers_comes_back_everywhere(folder, own, tmp_path, labels):
    expected = fine_tune(folder, labels, tmp_path)(images(own)).logits
    loaded = halonet.load(tmp_path)
    assert loaded.labels == labels
    assert torch.allclose(loaded.model(images(loaded)), expected, atol=1e-5)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.allclose(again(images(own)), expected, atol=1e-5)
    assert list(again.pretrained_cfg["label_names"]) == labels
    (guess,) = pipeline("image-classification", model=str(tmp_path))(PICTURE, top_k=1)
    assert guess["label"] == labels[int(expected.argmax())]


def test_a_network_that_began_in_transformers_is_read_though_nobody_knows_its_images(tmp_path):
    model = AutoModelForImageClassification.from_config(
        TimmWrapperConfig(architecture="halonet_paper_micro32", num_labels=3)
    )
    model.save_pretrained(tmp_path)
    network, information = load_checkpoint(tmp_path)
    pictures = torch.randn(2, 3, 32, 32)
    assert torch.allclose(network(pictures), model.eval()(pictures).logits, atol=1e-6)
    assert information["class_names"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    with pytest.raises(UserError, match="does not say how images were prepared for it"):
        halonet.load(tmp_path)


def test_old_names_that_transformers_kept_are_refused_with_their_file(folder, own, tmp_path):
    timms = shutil.copytree(folder, tmp_path / "timms")
    config = json.loads((timms / "config.json").read_text())
    (timms / "config.json").write_text(json.dumps(config | {"label_names": own.labels}))  # as timm writes them
    fine_tune(timms, ["cat", "dog"], tmp_path / "tuned")
    with pytest.raises(UserError, match=r"tuned/config.json names 10 classes, but its num_classes is 2") as caught:
        halonet.load(tmp_path / "tuned")
    assert "unless model.config.label_names is set before save_pretrained" in str(caught.value)


def test_a_network_without_a_classifier_is_refused(tmp_path):
    model = halonet.create_model("micro32")
    model.prune_intermediate_layers()  # which drops the classifier and the pooling
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    with pytest.raises(UserError, match=r"model.safetensors holds a network without a classifier: load it with"):
        halonet.load(tmp_path)


def test_timm_loads_a_runs_weights_as_a_checkpoint(folder, own):
    model = timm.create_model("halonet_paper_mini32", num_classes=10, checkpoint_path=str(folder / "model.safetensors"))
    assert torch.equal(model.eval()(images(own)), own.model(images(own)))


def test_a_network_of_gray_images_works_in_timm(tmp_path):
    own = halonet.load(save_to_hub_folder("fashion_mnist", tmp_path / "gray"))
    model = timm.create_model(f"local-dir:{tmp_path / 'gray'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    prepared = transform(PICTURE.convert("L"))[None]
    assert torch.allclose(prepared, images(own), atol=1e-6)
    assert torch.equal(model(images(own)), own.model(images(own)))
