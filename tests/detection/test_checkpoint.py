import json

import pytest
import safetensors.torch
import torch

import halonet
from halonet.classification.checkpoint import load_checkpoint
from halonet.detection import DetectionData, DetectionDataSection, Detector
from halonet.detection.checkpoint import initialize, load_detector
from halonet.detection.mask_rcnn import FasterRCNN
from halonet.engine.weights import describe, read_weights, save_weights
from halonet.errors import UserError, UserNote
from tests.detection.tiny import BACKBONE, tiny_augmentation, tiny_detector, tiny_recipe


def saved(detector, path, scenes):
    section = DetectionDataSection(source=str(scenes), augmentation=tiny_augmentation())
    data = DetectionData(section, batch_size=2)
    save_weights(path, detector.state_dict(), describe(detector, data))
    return path


def test_a_run_loads_with_all_that_is_known_of_it(finished_run, scenes):
    detector, information = load_detector(finished_run)
    assert not detector.training
    assert information["class_names"] == ["box", "disc"]
    assert information["category_ids"] == [3, 7]
    assert information["data"] == str(scenes)
    state, _, _ = read_weights(finished_run)
    assert all(torch.equal(tensor, state[name]) for name, tensor in detector.state_dict().items())


def test_a_loaded_detector_detects_as_the_saved_one(tmp_path, scenes):
    detector = tiny_detector(score_threshold=0.0, anchor_scale=5.0).eval()
    loaded, _ = load_detector(saved(detector, tmp_path / "model.safetensors", scenes))
    image = [torch.rand(3, 48, 64)]
    with torch.inference_mode():
        expected, found = detector(image)[0], loaded(image)[0]
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_classifier_initializes_a_detector(tmp_path):
    torch.manual_seed(1)
    classifier = halonet.create_model("tiny28", num_classes=5, in_chans=3, final_width=12, **BACKBONE)
    save_weights(tmp_path / "model.safetensors", classifier.state_dict(), describe(classifier))
    detector = tiny_detector()
    heads = {name: tensor.clone() for name, tensor in detector.roi_heads.state_dict().items()}
    initialize(detector, tmp_path / "model.safetensors")
    body, state = detector.pyramid.body.state_dict(), classifier.state_dict()
    assert body
    assert all(torch.equal(tensor, state[name]) for name, tensor in body.items())
    assert all(torch.equal(tensor, heads[name]) for name, tensor in detector.roi_heads.state_dict().items())


def test_another_classifier_is_refused(tmp_path):
    classifier = halonet.create_model("tiny28", num_classes=5, in_chans=3, **(BACKBONE | {"block_size": 7}))
    save_weights(tmp_path / "model.safetensors", classifier.state_dict(), describe(classifier))
    with pytest.raises(UserError, match="from another model than this HaloNet: .*of another shape"):
        initialize(tiny_detector(), tmp_path / "model.safetensors")


def test_a_detector_initializes_a_detector(finished_run):
    detector = tiny_detector()
    initialize(detector, finished_run)
    state, _, _ = read_weights(finished_run)
    assert all(torch.equal(tensor, state[name]) for name, tensor in detector.state_dict().items())


def test_other_classes_reset_the_class_layers(finished_run):
    torch.manual_seed(3)
    from halonet.detection import create_detector
    from tests.detection.tiny import SMALL

    detector = create_detector("tiny28", 4, tiny_augmentation(), backbone_overrides=BACKBONE, **SMALL)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    with pytest.warns(UserNote, match="tells 2 classes apart and the data has 4: the layers that name boxes"):
        initialize(detector, finished_run)
    state, _, _ = read_weights(finished_run)
    kept = {name for name, tensor in detector.state_dict().items() if torch.equal(tensor, before[name])}
    anew = {name for name in kept if not torch.equal(before[name], state[name])} if kept else set()
    assert {name.rpartition(".")[0] for name in anew} <= {
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.mask_predictor.mask_fcn_logits",
    }
    assert torch.equal(detector.state_dict()["rpn.head.cls_logits.weight"], state["rpn.head.cls_logits.weight"])


def test_a_classifier_is_refused_with_a_remedy(tmp_path):
    classifier = halonet.create_model("tiny28", num_classes=5, in_chans=3)
    save_weights(tmp_path / "model.safetensors", classifier.state_dict(), describe(classifier))
    with pytest.raises(UserError, match="holds no detector \\(it was saved from a HaloNet\\).*--init"):
        load_detector(tmp_path)


def test_a_detector_is_refused_as_a_classifier(finished_run):
    with pytest.raises(UserError, match="does not say which HaloNet its weights belong to .*from a MaskRCNN"):
        load_checkpoint(finished_run)


def test_weights_without_a_description_are_refused(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="neither a HaloNet nor a detector of this package .*something unknown"):
        initialize(tiny_detector(), tmp_path / "a.safetensors")


def test_a_detector_of_another_version_is_refused(finished_run, tmp_path):
    state, information, _ = read_weights(finished_run)
    information["config"] |= {"colour": 3}
    metadata = {"format": "pt", "halonet": json.dumps(information)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", metadata)
    with pytest.raises(UserError, match="the description in .*: unknown key 'config.colour'"):
        load_detector(tmp_path)


@pytest.mark.parametrize("name", ["class_names", "category_ids", "preprocessing"])
def test_an_incomplete_description_is_refused(finished_run, tmp_path, name):
    state, information, _ = read_weights(finished_run)
    del information[name]
    save_weights(tmp_path / "model.safetensors", state, information)
    with pytest.raises(UserError, match=f"{name} is missing"):
        load_detector(tmp_path)


def test_an_invalid_network_name_is_refused(tmp_path):
    information = {"network": ["MaskRCNN"]}
    save_weights(tmp_path / "model.safetensors", {"a": torch.zeros(1)}, information)
    with pytest.raises(UserError, match="holds no detector .*something unknown"):
        load_detector(tmp_path)
    with pytest.raises(UserError, match="neither a HaloNet nor a detector of this package .*something unknown"):
        initialize(tiny_detector(), tmp_path)


def test_two_classes_of_one_category_are_refused(finished_run, tmp_path):
    state, information, _ = read_weights(finished_run)
    save_weights(tmp_path / "model.safetensors", state, information | {"category_ids": [3, 3]})
    with pytest.raises(UserError, match="category_ids is .*, but must be 2 different numbers"):
        load_detector(tmp_path)


def test_a_box_detector_loads(box_run):
    detector, information = load_detector(box_run)
    assert type(detector) is FasterRCNN
    assert information["network"] == "FasterRCNN"
    assert "masks" not in detector([torch.rand(3, 48, 64)])[0]


def test_box_and_mask_detectors_initialize_each_other(box_run, finished_run, scenes, box_scenes):
    boxes = Detector.of(tiny_recipe(box_scenes, masks=False)).network
    initialize(boxes, finished_run)
    with_masks, _ = load_detector(finished_run)
    state = with_masks.state_dict()
    assert all(torch.equal(each, state[name]) for name, each in boxes.state_dict().items())

    masks = Detector.of(tiny_recipe(scenes)).network
    before = {name: each.clone() for name, each in masks.state_dict().items()}
    with pytest.warns(UserNote, match="draws no masks: the layers for masks start from random weights"):
        initialize(masks, box_run)
    expected = before | load_detector(box_run)[0].state_dict()
    assert all(torch.equal(each, expected[name]) for name, each in masks.state_dict().items())
