"""Prepared TFDS sets in array_record and tfrecord format, made here without TensorFlow, and read without it."""

import hashlib
import io
import json
import shutil
import struct
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from fmd.data import ImageStream, batch_indices, load
from fmd.data.sources import idx, mnist, tfds
from fmd.files import digest

RNG = np.random.default_rng(0)
FEATURES = "tensorflow_datasets.core.features"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path / "cache"))


def encode(image, label) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, format="PNG")
    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(file.getvalue())
    example.features.feature["label"].int64_list.value.append(int(label))
    return example.SerializeToString()


def write_records(path, file_format, records):
    if file_format == "array_record":
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
    else:  # the reader does not look at the two check sums
        path.write_bytes(b"".join(struct.pack("<QI", len(r), 0) + r + bytes(4) for r in records))


def prepare(root, name, file_format, splits):
    """A folder as TFDS leaves it; `splits` maps names to (images, labels), each written in two shards."""
    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    shape = {"dimensions": [str(n) for n in splits["train"][0].shape[1:]]}
    features = {
        "image": {"pythonClassName": f"{FEATURES}.image_feature.Image", "image": {"dtype": "uint8", "shape": shape}},
        "label": {"pythonClassName": f"{FEATURES}.class_label_feature.ClassLabel", "classLabel": {"numClasses": "10"}},
    }
    kind = f"{FEATURES}.features_dict.FeaturesDict"
    (folder / "features.json").write_text(json.dumps({"pythonClassName": kind, "featuresDict": {"features": features}}))
    keys = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}}
    info = {"name": name, "version": "1.0.0", "fileFormat": file_format, "supervisedKeys": keys, "splits": []}
    for split, (images, labels) in splits.items():
        records = [encode(image, label) for image, label in zip(images, labels, strict=True)]
        shards = records[: len(records) // 2], records[len(records) // 2 :]
        for k, shard in enumerate(shards):
            write_records(folder / f"{name}-{split}.{file_format}-{k:05}-of-00002", file_format, shard)
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        lengths = [str(len(shard)) for shard in shards]
        info["splits"].append({"name": split, "shardLengths": lengths, "filepathTemplate": template, "numBytes": "1"})
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def pair(n, size=5):
    return RNG.integers(0, 256, (n, size, size, 1), dtype=np.uint8), np.arange(n) % 10


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_prepared_set_is_read_without_tensorflow(tmp_path, file_format):
    splits = {"train": pair(12), "test": pair(10)}
    prepare(tmp_path, "my_set", file_format, splits)
    for _ in range(2):  # decoded, then from the cache
        dataset = load("tfds", name="my_set", data_dir=str(tmp_path))
        np.testing.assert_array_equal(dataset.train.images, splits["train"][0])
        np.testing.assert_array_equal(dataset.train.labels, splits["train"][1])
        np.testing.assert_array_equal(dataset.test.images, splits["test"][0])
    assert (dataset.name, dataset.num_classes, dataset.class_names[3]) == ("my_set", 10, "3")
    assert "my_set/1.0.0 prepared in" in dataset.provenance
    assert "tensorflow" not in sys.modules
    assert load("tfds", name="my_set", data_dir=str(tmp_path), image_size=4).image_shape == (4, 4, 1)


def test_splits_are_chosen_or_held_out(tmp_path):
    prepare(tmp_path, "my_set", "tfrecord", {"train": pair(20), "validation": pair(10), "extra": pair(30)})
    assert len(load("tfds", name="my_set", data_dir=str(tmp_path)).test) == 10
    assert len(load("tfds", name="my_set", data_dir=str(tmp_path), train_split="extra").train) == 30
    with pytest.raises(ValueError, match="no split 'tset': choose from train, validation, extra"):
        load("tfds", name="my_set", data_dir=str(tmp_path), test_split="tset")
    prepare(tmp_path, "other_set", "tfrecord", {"train": pair(20)})
    dataset = load("tfds", name="other_set", data_dir=str(tmp_path))
    assert (len(dataset.train), len(dataset.test)) == (10, 10)


def test_a_test_split_without_labels_is_not_taken(tmp_path):
    """TFDS marks missing labels by -1."""
    images, labels = pair(10)
    hidden = images, np.full(10, -1)
    prepare(tmp_path, "my_set", "array_record", {"train": pair(20), "test": hidden, "validation": (images, labels)})
    for stream in (False, True):
        dataset = load("tfds", name="my_set", data_dir=str(tmp_path), stream=stream)
        np.testing.assert_array_equal(dataset.test.labels, labels)
    prepare(tmp_path, "other_set", "tfrecord", {"train": pair(20), "test": hidden})
    assert len(load("tfds", name="other_set", data_dir=str(tmp_path)).test) == 10
    with pytest.raises(ValueError, match=r"split test has no labels \(-1\)"):
        load("tfds", name="other_set", data_dir=str(tmp_path), train_split="test", test_split="train")
    prepare(tmp_path, "third_set", "array_record", {"train": (pair(12)[0], np.full(12, -1)), "test": pair(10)})
    streamed = load("tfds", name="third_set", data_dir=str(tmp_path), stream=True)
    with pytest.raises(ValueError, match="labels must count from 0, got -1"):
        next(streamed.train.stream(batch_size=4, seed=0))


def test_sets_of_equal_names_and_lengths_are_told_apart(tmp_path):
    for where in ("one", "two"):
        prepare(tmp_path / where, "my_set", "tfrecord", {"train": pair(12), "test": pair(10)})
    one, two = (load("tfds", name="my_set", data_dir=str(tmp_path / where)) for where in ("one", "two"))
    assert one.digest() != two.digest()
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert load("tfds", name="my_set", data_dir=str(tmp_path / "moved")).digest() == one.digest()


def test_streaming_needs_random_access_and_then_equals_the_set_in_memory(tmp_path):
    images, labels = pair(12)
    prepare(tmp_path, "my_set", "array_record", {"train": (images, labels)})
    stream = ImageStream(tfds.random_access("my_set", data_dir=str(tmp_path)), batch_size=5, seed=1)
    for step in range(4):
        got_images, got_labels = next(stream)
        indices = batch_indices(1, step, 5, 12)
        np.testing.assert_array_equal(got_images, images[indices])
        np.testing.assert_array_equal(got_labels, labels[indices])
    stream.close()
    prepare(tmp_path, "flat_set", "tfrecord", {"train": (images, labels)})
    with pytest.raises(RuntimeError, match=r"prepared in tfrecord format, .* file_format='array_record'"):
        tfds.random_access("flat_set", data_dir=str(tmp_path))


def test_unknown_unprepared_and_damaged_sets_are_refused(tmp_path, monkeypatch):
    with pytest.raises(KeyError, match=r"TFDS knows no set 'cifra10' .* did you mean cifar10"):
        load("tfds", name="cifra10", data_dir=str(tmp_path))
    monkeypatch.setattr(tfds.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"needs TensorFlow: pip install 'flow-matching-designs\[tensorflow\]'"):
        load("tfds", name="cifar10", data_dir=str(tmp_path))
    folder = prepare(tmp_path, "my_set", "tfrecord", {"train": pair(12)})
    shard = folder / "my_set-train.tfrecord-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is cut off"):
        load("tfds", name="my_set", data_dir=str(tmp_path))
    write_records(shard, "tfrecord", [])
    with pytest.raises(ValueError, match="split train has 6 of 12 examples"):
        load("tfds", name="my_set", data_dir=str(tmp_path))
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "riegeli"}))
    with pytest.raises(ValueError, match="is in riegeli format, which cannot be read here"):
        load("tfds", name="my_set", data_dir=str(tmp_path))


def test_a_failing_preparation_is_told_in_one_line(tmp_path, monkeypatch):
    import tensorflow_datasets

    def fail(self):
        raise ConnectionError(f"no route for {self.info.file_format.value}\nand much more")

    monkeypatch.setattr(tfds.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(
        RuntimeError, match=r"could not prepare cifar10 in .*: ConnectionError: no route for array_record$"
    ):
        load("tfds", name="cifar10", data_dir=str(tmp_path))


def test_a_set_that_is_not_for_classification_is_refused(tmp_path):
    folder = prepare(tmp_path, "my_set", "tfrecord", {"train": pair(12)})
    tree = json.loads((folder / "features.json").read_text())
    tree["featuresDict"]["features"]["image2"] = tree["featuresDict"]["features"]["image"]
    (folder / "features.json").write_text(json.dumps(tree))
    info = json.loads((folder / "dataset_info.json").read_text())
    del info["supervisedKeys"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"not for image classification: .* image, image2, label"):
        load("tfds", name="my_set", data_dir=str(tmp_path))


def test_mnist_prepared_by_tfds_gets_its_published_order_back(tmp_path, monkeypatch):
    published = {"train": pair(30, 28), "test": pair(20, 28)}
    shuffled = {}
    for split, (images, labels) in published.items():
        order = tfds.published_order(split, len(labels))
        assert not np.array_equal(order, np.arange(len(labels)))
        shuffled[split] = images[order], labels[order]
    prepare(tmp_path, "mnist", "tfrecord", shuffled)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert tfds.prepared_here("mnist") == ["mnist:1.0.0"]
    assert tfds.prepared_here("fashion_mnist") == []
    files = [idx.encode(a[..., 0] if a.ndim == 4 else a.astype(np.uint8)) for s in published.values() for a in s]
    dataset = mnist.load_published(
        mnist.Published("mnist", md5=tuple(digest(data, "md5") for data in files), class_names=tuple("0123456789"))
    )
    np.testing.assert_array_equal(dataset.train.images, published["train"][0])
    np.testing.assert_array_equal(dataset.test.labels, published["test"][1])
    assert "the prepared TFDS set mnist:1.0.0 (kept in" in dataset.provenance


def test_the_published_order_is_that_of_md5_sums():
    expected = sorted(range(200), key=lambda key: hashlib.md5(f"train{key}".encode()).digest())
    np.testing.assert_array_equal(tfds.published_order("train", 200), expected)


def test_a_streamed_set_gives_the_batches_of_the_one_in_memory(tmp_path):
    prepare(tmp_path, "my_set", "array_record", {"train": pair(12, 6), "test": pair(10, 6)})
    whole = load("tfds", name="my_set", data_dir=str(tmp_path), image_size=4)
    streamed = load("tfds", name="my_set", data_dir=str(tmp_path), image_size=4, stream=True)
    assert (len(streamed.train), streamed.image_shape, streamed.num_classes) == (12, (4, 4, 1), 10)
    np.testing.assert_array_equal(streamed.test.images, whole.test.images)
    stream = streamed.train.stream(batch_size=8, seed=3, step=2)
    images, labels = next(stream)
    stream.close()
    rows = batch_indices(3, 2, 8, 12)
    np.testing.assert_array_equal(images, whole.train.images[rows])
    np.testing.assert_array_equal(labels, whole.train.labels[rows])
    prepare(tmp_path, "alone", "array_record", {"train": pair(12)})
    with pytest.raises(ValueError, match="no test split, which streaming needs"):
        load("tfds", name="alone", data_dir=str(tmp_path), stream=True)


def test_no_more_test_images_of_a_streamed_set_are_kept_than_asked_for(tmp_path):
    images, labels = pair(10)
    prepare(tmp_path, "my_set", "array_record", {"train": pair(12), "test": (images, labels)})
    given = {"name": "my_set", "data_dir": str(tmp_path), "test_images": 3}
    few = load("tfds", stream=True, **given).test
    np.testing.assert_array_equal(few.images, images[[0, 3, 6]])
    np.testing.assert_array_equal(few.labels, labels[[0, 3, 6]])
    assert len(load("tfds", **given).test) == 10  # in memory all are
    with pytest.raises(ValueError, match="test_images must be at least 1, got 0"):
        load("tfds", stream=True, **{**given, "test_images": 0})


def prepare_told(root):
    """A set with features of every kind; the number of an example is in each of them."""
    from tensorflow_datasets import features

    kinds = {
        "image": features.Image(shape=(5, 5, 1)),
        "low": features.Image(shape=(3, 3, 1)),
        "colour": features.ClassLabel(num_classes=3),
        "year": features.Scalar(np.int64),
        "age": features.Scalar(np.float32),
        "style": features.Tensor(shape=(2,), dtype=np.float32),
        "marks": features.FeaturesDict({"smiles": features.Scalar(np.bool_), "hat": features.Scalar(np.bool_)}),
        "words": features.Text(),
    }

    def record(k):
        example = tf_example_pb2.Example()
        feature = example.features.feature
        for key, size in (("image", 5), ("low", 3)):
            file = io.BytesIO()
            Image.new("L", (size, size), k).save(file, format="PNG")
            feature[key].bytes_list.value.append(file.getvalue())
        for key, value in {"colour": k % 3, "year": 1900 + k, "marks/smiles": k % 2, "marks/hat": 1}.items():
            feature[key].int64_list.value.append(value)
        feature["age"].float_list.value.append(k / 2)
        feature["style"].float_list.value.extend([k, -k])
        feature["words"].bytes_list.value.append(b"words")
        return example.SerializeToString()

    folder = prepare(root, "told", "array_record", {"train": pair(12), "test": pair(12)})
    for split, numbers in (("train", range(12)), ("test", range(2, 8))):
        for shard, part in enumerate((numbers[:3], numbers[3:])):
            path = folder / f"told-{split}.array_record-{shard:05}-of-00002"
            write_records(path, "array_record", [record(k) for k in part])
    (folder / "features.json").write_text(json.dumps(features.FeaturesDict(kinds).to_json()))
    info = json.loads((folder / "dataset_info.json").read_text())
    del info["supervisedKeys"]
    for split, lengths in zip(info["splits"], (("3", "9"), ("3", "3")), strict=True):
        split["shardLengths"] = list(lengths)
    (folder / "dataset_info.json").write_text(json.dumps(info))


TOLD = {"low": "auto", "colour": "auto", "year": "number", "age": "auto", "style": "auto", "marks": "auto"}


@pytest.mark.parametrize("stream", [False, True])
def test_further_features_are_told_in_memory_and_streamed(tmp_path, stream):
    prepare_told(tmp_path)
    for _ in range(2):  # decoded, then from the cache
        dataset = load("tfds", name="told", data_dir=str(tmp_path), conditions=TOLD, stream=stream)
    ranges = {"year": (1902, 1907), "age": (1.0, 3.5)} if stream else {"year": (1900, 1911), "age": (0.0, 5.5)}
    assert dataset.conditions == {
        "age": {"kind": "number", "low": ranges["age"][0], "high": ranges["age"][1]},
        "colour": {"kind": "label", "num_classes": 3},
        "low": {"kind": "image", "height": 3, "width": 3, "channels": 1},
        "marks": {"kind": "labels", "num_classes": 2},
        "style": {"kind": "vector", "size": 2},
        "year": {"kind": "number", "low": ranges["year"][0], "high": ranges["year"][1]},
    }
    if stream:
        batches = dataset.train.stream(batch_size=8, seed=0)
        images, y = next(batches)
        batches.close()
    else:
        images, y = dataset.train.images, dataset.train.y
    k = images[:, 0, 0, 0].astype(np.float32)
    np.testing.assert_array_equal(y["low"][:, 2, 2, 0], k)
    np.testing.assert_array_equal(y["colour"], k % 3)
    np.testing.assert_array_equal(y["year"], 1900 + k[:, None])
    np.testing.assert_array_equal(y["age"], k[:, None] / 2)
    np.testing.assert_array_equal(y["style"], np.stack([k, -k], 1))
    np.testing.assert_array_equal(y["marks"], np.stack([np.ones(len(k)), k % 2], 1))  # hat, then smiles
    assert {name: part.dtype.name for name, part in y.items()} == {
        "low": "uint8", "colour": "int32", "year": "float32", "age": "float32", "style": "float32", "marks": "uint8",
    }  # fmt: skip


def test_features_that_cannot_be_told_are_refused(tmp_path):
    prepare_told(tmp_path)

    def told(**params):
        return load("tfds", name="told", data_dir=str(tmp_path), **params)

    with pytest.raises(ValueError, match="has no feature 'hue', only: age, colour"):
        told(conditions=("low", "hue"))
    with pytest.raises(ValueError, match="feature 'words', of type Text, is of no kind that can be told"):
        told(conditions=("low", "words"))
    with pytest.raises(ValueError, match=r"one image and at most one class label .* name others .* as conditions"):
        told(conditions=("age",))
    with pytest.raises(ValueError, match="condition 'style' of kind number must be numbers"):
        told(conditions={"style": "number", "low": "image"})
    sized = told(conditions=("low",), image_size=4)  # `colour` is then the class
    assert (sized.num_classes, sized.image_shape) == (3, (4, 4, 1))
    assert sized.conditions["low"] == {"kind": "image", "height": 4, "width": 4, "channels": 1}
    np.testing.assert_array_equal(sized.train.y["label"], sized.train.images[:, 0, 0, 0] % 3)
    given = told(conditions={"low": "image", "year": {"kind": "label", "num_classes": 3000}}, stream=True)
    assert given.conditions["year"] == {"kind": "label", "num_classes": 3000}
