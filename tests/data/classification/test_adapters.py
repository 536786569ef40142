import re
import struct
import sys

import numpy as np
import pytest
from pyarrow import parquet
from torchvision.datasets import ImageFolder

from halonet.data.classification.adapters import TORCH_SPLITS
from halonet.data.classification.sources import available_splits, load_source
from halonet.errors import UserError
from halonet.installation import command_for_extra
from tests.data.samples import noise_image


@pytest.fixture
def hub(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="needs the extra halonet[streaming]")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    return datasets


def write_parquet(datasets, folder, splits, label=None, image_column="image"):
    """Write parquet files of images; `splits` maps splits to labels."""
    folder.mkdir()
    for split, labels in splits.items():
        images = [noise_image(seed) for seed in range(len(labels))]
        table = datasets.Dataset.from_dict({image_column: images, "label": labels})
        table = table.cast_column(image_column, datasets.Image())
        if label is not None:
            table = table.cast_column("label", label)
        table.to_parquet(str(folder / f"{split}.parquet"))
    return folder


def labels_of(source):
    return [source[i][1] for i in range(len(source))]


@pytest.mark.parametrize("prefix", ["", "hfds/", "HFDS/"])
def test_folder_of_parquet_files_is_read(tmp_path, hub, prefix):
    names = hub.ClassLabel(names=["ant", "bee"])
    folder = write_parquet(hub, tmp_path / "set", {"train": [0, 1] * 10, "test": [1, 0]}, names)
    data = f"{prefix}{folder}"
    assert available_splits(data) == ("train", "validation", "test")
    source = load_source(data, "test")
    assert source.class_names == ["ant", "bee"]
    assert labels_of(source) == [1, 0]
    assert np.array_equal(np.asarray(source[1][0]), np.asarray(noise_image(1)))
    assert [len(load_source(data, split)) for split in ("train", "validation")] == [18, 2]


def test_image_column_is_found_by_its_type(tmp_path, hub):
    folder = write_parquet(hub, tmp_path / "set", {"validation": [0, 2, 1]}, image_column="img")
    source = load_source(str(folder), "validation")
    assert source.class_names == ["0", "1", "2"]
    assert labels_of(source) == [0, 2, 1]


def test_text_labels_are_numbered_in_natural_order(tmp_path, hub):
    folder = write_parquet(hub, tmp_path / "set", {"test": ["c10", "c9", "c10"]})
    source = load_source(str(folder), "test")
    assert source.class_names == ["c9", "c10"]
    assert labels_of(source) == [1, 0, 1]


def test_splits_with_different_text_labels_are_refused(tmp_path, hub):
    folder = write_parquet(hub, tmp_path / "set", {"train": ["a", "b", "c"], "test": ["a", "c"]})
    with pytest.raises(UserError, match=r"\(test\) has 2 classes and .*\(train\) has 3: .* Missing: b"):
        load_source(str(folder), "test")


def test_split_without_labels_is_refused(tmp_path, hub):
    folder = write_parquet(hub, tmp_path / "set", {"test": [-1, -1]})
    with pytest.raises(UserError, match="without a label"):
        load_source(str(folder), "test")


def test_invalid_labels_are_refused(tmp_path, hub):
    folder = write_parquet(hub, tmp_path / "set", {"test": [0.5, 1.5]})
    with pytest.raises(UserError, match=r"'label' .* must hold class names or numbers from 0"):
        load_source(str(folder), "test")


def test_table_without_images_is_refused(tmp_path, hub):
    (tmp_path / "set").mkdir()
    hub.Dataset.from_dict({"text": ["a"], "label": [0]}).to_parquet(str(tmp_path / "set/train.parquet"))
    with pytest.raises(UserError, match=r"needs an image column and a label column; its columns: text, label$"):
        load_source(str(tmp_path / "set"), "train")


def test_damaged_image_in_a_table_is_named(tmp_path, hub):
    (tmp_path / "set").mkdir()
    table = hub.Dataset.from_dict({"image": [{"bytes": b"none", "path": None}], "label": [0]})
    table.cast_column("image", hub.Image()).to_parquet(str(tmp_path / "set/test.parquet"))
    source = load_source(str(tmp_path / "set"), "test")
    with pytest.raises(UserError, match=r"^0 of .*set \(test\) is not an image that can be read"):
        source[0]


README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: https://example.invalid/train.parquet
  - split: test
    path: ../secret/*.parquet
---
"""


def test_readme_beside_parquet_files_is_ignored(tmp_path, hub, monkeypatch):
    requests = []
    monkeypatch.setattr("socket.socket.connect", lambda _, address: requests.append(address))
    names = hub.ClassLabel(names=["ant", "bee"])
    write_parquet(hub, tmp_path / "secret", {"test": [1]}, names)
    folder = write_parquet(hub, tmp_path / "set", {"train": [0, 1] * 10}, names)
    (folder / "README.md").write_text(README)
    for data in (str(folder), f"hfds/{folder}"):
        assert available_splits(data) == ("train", "validation")
        assert labels_of(load_source(data, "train"))[:2] == [0, 1]
    assert requests == []


@pytest.mark.parametrize("path", ["../secret.png", "https://example.invalid/a.png"])
def test_image_outside_its_parquet_file_is_refused(tmp_path, hub, monkeypatch, path):
    noise_image(0).save(tmp_path / "secret.png")
    (tmp_path / "set").mkdir()
    path = path.replace("..", str(tmp_path))
    requests = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *address, **_: requests.append(address))
    table = hub.Dataset.from_dict({"image": [{"bytes": None, "path": path}], "label": [0]})
    schema = table.cast_column("image", hub.Image(decode=False)).features.arrow_schema
    parquet.write_table(table.data.table.cast(schema), tmp_path / "set/test.parquet")
    source = load_source(str(tmp_path / "set"), "test")
    with pytest.raises(UserError, match="image 0 of .* is not in the parquet file, which names"):
        source[0]
    assert requests == []


def test_parquet_splits_are_found_by_name(tmp_path, hub):
    folder = write_parquet(hub, tmp_path / "set", {"train-00000-of-00002": [0], "train-00001-of-00002": [1, 0]})
    write_parquet(hub, folder / "data", {"Validation-0": [1, 1, 1, 0]})
    write_parquet(hub, folder / "test", {"0000": [1, 0, 1]})
    sizes = {split: len(load_source(str(folder), split)) for split in available_splits(str(folder))}
    assert sizes == {"train": 3, "validation": 4, "test": 3}
    assert labels_of(load_source(str(folder), "train")) == [0, 1, 0]


def test_folder_name_is_not_a_glob_pattern(tmp_path, hub):
    folder = write_parquet(hub, tmp_path / "set[1]*", {"test": [0, 1]})
    assert labels_of(load_source(str(folder), "test")) == [0, 1]


def test_missing_local_data_set_is_not_downloaded(tmp_path):
    with pytest.raises(UserError, match=rf"data folder {tmp_path}/nowhere does not exist"):
        load_source(f"hfds/{tmp_path}/nowhere", "train")


def test_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=re.escape(f"needs the package 'datasets': {command_for_extra('streaming')}")):
        load_source("hfds/owner/name", "train")


def write_idx(folder, counts):
    raw = folder / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for prefix, count in counts.items():
        images = np.stack([np.asarray(noise_image(seed, (28, 28), "L")) for seed in range(count)])
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (raw / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())
    return folder


def test_torchvision_set_is_read_from_its_root(tmp_path):
    write_idx(tmp_path, {"train": 20, "t10k": 3})
    assert available_splits("torch/fashion_mnist", root=tmp_path) == ("train", "validation", "test")
    sources = {
        split: load_source("torch/fashion_mnist", split, root=tmp_path) for split in ("train", "validation", "test")
    }
    assert {split: len(source) for split, source in sources.items()} == {"train": 18, "validation": 2, "test": 3}
    image, label = sources["validation"][1]
    assert np.array_equal(np.asarray(image), np.asarray(noise_image(19, (28, 28), "L")))
    assert label == 9
    assert sources["test"].class_names[0] == "T-shirt/top"


def test_missing_torchvision_set_is_not_downloaded(tmp_path, monkeypatch):
    requests = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *arguments, **_: requests.append(arguments))
    with pytest.raises(UserError, match=r"torch/cifar10 \(train\) cannot be read from "):
        load_source("torch/cifar10", "train", root=tmp_path)
    assert requests == []
    with pytest.raises(UserError, match="needs the folder that holds it"):
        load_source("torch/cifar10", "train")


def test_unknown_torchvision_set_gets_the_nearest_name(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'cifar10'"):
        load_source("torch/cifar11", "train", root=tmp_path)


def test_torchvision_test_images_are_never_validation():
    for name, splits in TORCH_SPLITS.items():
        available = available_splits(f"torch/{name}")
        assert "validation" in available
        assert ("test" in available) == ("test" in splits)


def test_torchvision_folder_uses_open_image(tmp_path, monkeypatch):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant/0.png").write_bytes(b"none")
    monkeypatch.setattr(
        "halonet.data.classification.adapters.create_dataset", lambda *_, **__: ImageFolder(str(tmp_path))
    )
    source = load_source("torch/imagenet", "validation", root=tmp_path)
    assert source.class_names == ["ant"]
    with pytest.raises(UserError, match=r"0\.png is not an image that can be read"):
        source[0]
