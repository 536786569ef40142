import json

import pytest
import torch

from halonet.detection import DetectionData, DetectionDataSection
from halonet.errors import UserError
from tests.detection.tiny import make_scenes, tiny_augmentation


def data(source, batch_size=2, masks=True, **section):
    section = DetectionDataSection(source=str(source), augmentation=tiny_augmentation(), **section)
    return DetectionData(section, batch_size=batch_size, masks=masks)


def test_training_batches_are_lists(scenes):
    batches = list(data(scenes).train_dataloader())
    assert len(batches) == 3
    images, targets = batches[0]
    assert len(images) == len(targets) == 2
    assert {min(image.shape[1:]) for image in images} <= {40, 48}
    assert all(target["masks"].shape[1:] == image.shape[1:] for image, target in zip(images, targets, strict=True))


def test_a_later_start_yields_the_rest_of_the_epoch(scenes):
    whole = list(data(scenes).train_dataloader())
    late = data(scenes)
    late.load_state_dict({"epoch": 0, "batch": 1, "images": 6})
    for (images, _), (expected, _) in zip(late.train_dataloader(), whole[1:], strict=True):
        assert all(torch.equal(one, other) for one, other in zip(images, expected, strict=True))


def test_repeats_are_augmented_anew(scenes):
    assert len(data(scenes, repeats=4).train_dataloader()) == 12
    dataset = data(scenes, repeats=8).train_dataset()
    sizes = {tuple(dataset[0, 6 * repeat][0].shape) for repeat in range(8)}
    assert len(sizes) > 1


def test_evaluation_takes_single_images_in_order(scenes):
    ids = [[target["image_id"] for target in targets] for _, targets in data(scenes, batch_size=4).val_dataloader()]
    assert ids == [[1], [2], [3]]


def test_a_checkpoint_says_the_categories(scenes):
    described = data(scenes).describe()
    assert described["class_names"] == ["box", "disc"]
    assert described["category_ids"] == [3, 7]
    assert described["data"] == str(scenes)
    json.dumps(described)


def test_only_training_leaves_out_empty_images(tmp_path):
    folder = make_scenes(tmp_path / "coco")
    for split in ("train", "val"):
        file = folder / "annotations" / f"instances_{split}.json"
        content = json.loads(file.read_text())
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] != 2]
        file.write_text(json.dumps(content))
    assert len(data(folder).train_dataset()) == 5
    assert len(data(folder, skip_empty=False).train_dataset()) == 6
    assert len(data(folder).evaluation_dataset("validation")) == 3


def test_an_empty_split_is_refused(tmp_path):
    folder = make_scenes(tmp_path / "coco")
    file = folder / "annotations" / "instances_val.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    with pytest.raises(UserError, match="split 'validation' of .* has no instances"):
        data(folder).setup()


def test_too_few_images_for_a_batch_are_refused(scenes):
    with pytest.raises(UserError, match="has 6 training images, too few for one batch of 7"):
        data(scenes, batch_size=7).setup()
