"""Folders for the Hub, read by the libraries that people read them with."""

import json
import os
import shutil

import pytest
import timm
import torch
from PIL import Image
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    TimmBackboneConfig,
    pipeline,
)

import halonet
from halonet.classification import hub
from halonet.engine.weights import describe, read_weights, save_weights
from halonet.errors import UserError
from halonet.models.registry import nearest_row

FILES = ["README.md", "config.json", "model.safetensors"]
PICTURE = Image.radial_gradient("L").convert("RGB")
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return hub.save_to_hub_folder("mini32.cifar10", tmp_path_factory.mktemp("hub") / "cifar10")


@pytest.fixture(scope="module")
def own():
    return halonet.load("mini32.cifar10")


def test_a_folder_holds_config_weights_and_card(folder):
    assert sorted(os.listdir(folder)) == FILES
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    for fact in (
        "84.46 %",
        "10,000 images of CIFAR-10",
        "488,778 parameters",
        "recipe `cifar10/minutes`",
        "vaswani2021",
    ):
        assert fact in card


@pytest.fixture(scope="module")
def run_of_somebody(tmp_path_factory):
    """A run on a folder of this machine, measured at its end."""
    run = tmp_path_factory.mktemp("private") / "run"
    run.mkdir()
    state, information, _ = read_weights("mini32.cifar10")
    own = {key: value for key, value in information.items() if key not in ("run", "figures")}
    data = str(run.parent / "photos")
    save_weights(run / "model.safetensors", state, own | {"data": data, "root": str(run.parent)})
    result = {"recipe": "mine", "seed": 3, "epochs": 5, "top1": 91.5, "top5": 99.0, "loss": 0.25, "images": 400}
    (run / "result.json").write_text(json.dumps(result | {"split": "validation", "data": data, "variant": None}))
    return run


def test_a_run_takes_its_results_along_but_not_its_paths_nor_our_license(run_of_somebody, tmp_path):
    folder = hub.save_to_hub_folder(run_of_somebody, tmp_path / "mine")
    card = (folder / "README.md").read_text()
    assert "Trained on `photos` by halonet's recipe `mine` (5 epochs, seed 3)." in card
    assert "Accuracy on 400 images of photos (validation): top-1 91.50 %" in card
    assert "license: apache-2.0" not in card
    assert "license" not in json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    for file in folder.iterdir():
        assert str(run_of_somebody.parent).encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ("[", "result.json is not a JSON file"),
        ("[1]", r"result.json holds \[1\], but must hold keys and values"),
        ('{"split": "test"}', "result.json: 4 mistakes"),
        ('{"top1": "high"}', "top1 is 'high', but must be a finite number"),
    ],
)
def test_a_damaged_result_is_refused(run_of_somebody, tmp_path, content, refusal):
    run = shutil.copytree(run_of_somebody, tmp_path / "run")
    (run / "result.json").write_text(content)
    with pytest.raises(UserError, match=refusal):
        hub.save_to_hub_folder(run, tmp_path / "folder")
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("said", [{"figures": 3}, {"figures": {"top1": 101}}, {"run": []}, {"run": {"epochs": "many"}}])
def test_a_damaged_description_of_the_training_is_refused(tmp_path, said):
    state, information, _ = read_weights("mini32.cifar10")
    for name, values in said.items():
        information[name] = information[name] | values if isinstance(values, dict) else values
    save_weights(tmp_path / "x.safetensors", state, information)
    with pytest.raises(UserError, match="the description in .*x.safetensors: "):
        hub.save_to_hub_folder(tmp_path / "x.safetensors", tmp_path / "folder")


def test_timm_reads_the_folder(folder, own):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    assert torch.allclose(transform(PICTURE), own.transform(PICTURE), atol=1e-6)
    assert torch.equal(model(own.transform(PICTURE)[None]), own.model(own.transform(PICTURE)[None]))


def test_halonet_reads_the_folder_with_all_that_the_checkpoint_says(folder, own):
    loaded = halonet.load(folder)
    assert (loaded.labels, loaded.information) == (own.labels, own.information)


def test_transformers_pipeline_labels_a_picture(folder, own):
    guesses = pipeline("image-classification", model=str(folder))(PICTURE)
    probabilities = own.model(own.transform(PICTURE)[None]).softmax(1)[0]
    assert [guess["label"] for guess in guesses] == [own.labels[index] for index in probabilities.topk(5).indices]
    assert guesses[0]["score"] == pytest.approx(probabilities.max().item(), abs=1e-4)


def test_transformers_auto_classes_give_the_same_logits(folder, own):
    inputs = AutoImageProcessor.from_pretrained(folder)(PICTURE, return_tensors="pt")
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    assert torch.allclose(model(**inputs).logits, own.model(own.transform(PICTURE)[None]), atol=1e-5)
    assert list(model.config.id2label.values()) == own.labels


@pytest.mark.parametrize("source", ["name", "folder"])
def test_transformers_backbone_gives_the_stages(folder, own, source):
    name = f"local-dir:{folder}" if source == "folder" else "halonet_paper_mini32.cifar10"
    backbone = AutoBackbone.from_config(TimmBackboneConfig(backbone=name, out_indices=[1, 2, 3])).eval()
    features = halonet.create_model("mini32.cifar10", pretrained=True, features_only=True, out_indices=(1, 2, 3)).eval()
    backbone._backbone.load_state_dict(features.state_dict())
    images = torch.randn(1, 3, 48, 32)
    maps = backbone(images).feature_maps
    assert [torch.equal(*pair) for pair in zip(maps, features(images), strict=True)] == [True] * 3
    assert backbone.channels == [64, 128, 256]


def test_a_changed_configuration_travels(tmp_path):
    model = halonet.create_model("mini32", num_classes=2, centered=True, border="zeros", depths=(1, 1, 1)).eval()
    row, changes = nearest_row(model.config)
    assert halonet.models.configure(row, **changes) == model.config


def test_an_empty_folder_is_filled(tmp_path, monkeypatch):
    """Also where it cannot be replaced by another: as a link and as the working directory."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    hub.save_to_hub_folder("mini32.cifar10", tmp_path / "link")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    hub.save_to_hub_folder("mini32.cifar10", ".")
    assert sorted(os.listdir(tmp_path)) == ["empty", "here", "link"]
    assert sorted(os.listdir(tmp_path / "empty")) == sorted(os.listdir(tmp_path / "here")) == FILES


def test_a_place_that_cannot_take_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for place, words in {
        "": "already holds files: choose a new folder",
        "file": "is a file, not a folder; name another place",
        "file/new": "is a file, not a folder; name another place",
        "dangling": "is a file, not a folder; name another place",
        "x" * 300: "File name too long; name another place",
    }.items():
        with pytest.raises(UserError, match=words):
            hub.save_to_hub_folder("mini32.cifar10", tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file"]


def test_a_folder_that_reads_back_differently_is_not_kept(tmp_path, monkeypatch):
    save = hub.save_weights

    def damage(path, state, information):
        save(path, state | {"classifier.bias": state["classifier.bias"] + 1}, information)

    monkeypatch.setattr(hub, "save_weights", damage)
    with pytest.raises(UserError, match="timm reads another network"):
        hub.save_to_hub_folder("mini32.cifar10", tmp_path / "new")
    assert os.listdir(tmp_path) == []


def test_a_network_of_1000_classes_keeps_its_labels_in_transformers(tmp_path):
    """Transformers takes ImageNet's names for any network of 1,000 classes without names."""
    network = halonet.create_model("micro32", num_classes=1000)
    prepared = {"image_size": 32, "in_chans": 3}
    save_weights(tmp_path / "x.safetensors", network.state_dict(), describe(network) | {"preprocessing": prepared})
    folder = hub.save_to_hub_folder(tmp_path / "x.safetensors", tmp_path / "folder")
    labels = AutoConfig.from_pretrained(folder).id2label
    assert list(labels.values()) == halonet.load(folder).labels == [str(number) for number in range(1000)]
