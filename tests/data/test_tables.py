"""The folder source with a table: kinds of columns, further images, splits, and what is wrong with tables of people."""

import json

import numpy as np
import pytest

from fmd.data import load
from tests.helpers.pictures import paint

pytestmark = pytest.mark.usefixtures("cache")


def row(k, folder=""):
    """The words of a table on image number k, which is of that red."""
    return {
        "file_name": f"{folder}{k}.png",
        "age": k / 2,
        "year": 2000 + k,
        "hue": k % 3,
        "colour": ("red", "blue", "2 greens", "10 greens")[k % 4],
        "low_file_name": f"low/{k}.png",
        "style": [k, 0.5],
        "marks": [0, k % 2],
        "tags": ["a"] * (k % 2) + ["b"],
        "true": k % 2 == 0,
    }


def write(folder, rows, form="jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    if form == "jsonl":
        (folder / "metadata.jsonl").write_text("".join(json.dumps(cells) + "\n" for cells in rows))
    else:
        lines = [",".join(map(str, cells.values())) for cells in rows]
        (folder / "metadata.csv").write_text("\n".join([",".join(rows[0]), *lines]), encoding="utf-8-sig")


def told(folder, numbers, form="jsonl", **changes):
    """A folder of images with small ones beside them and a table; `changes` are of its rows by number: row_3={...}."""
    for k in numbers:
        paint(folder / f"{k}.png", (k, 0, 0))
        paint(folder / "low" / f"{k}.png", (0, k, 0), size=(3, 2))
    rows = [row(k) | changes.get(f"row_{k}", {}) for k in numbers]
    if form == "csv":
        rows = [{key: value for key, value in cells.items() if not isinstance(value, list)} for cells in rows]
    write(folder, rows, form)


def test_columns_become_parts_by_what_is_in_them(tmp_path, log):
    told(tmp_path / "set", range(12))
    parts = ("age", "hue", "colour", "low", "style", "marks", "tags", "true")
    dataset = load("folder", path=str(tmp_path / "set"), conditions=parts, test_fraction=0.25)
    k = dataset.train.images[:, 0, 0, 0].astype(np.float32)
    assert dataset.conditions == {
        "age": {"kind": "number", "low": float(k.min()) / 2, "high": float(k.max()) / 2},
        "hue": {"kind": "label", "num_classes": 3},
        "colour": {"kind": "label", "num_classes": 4},
        "low": {"kind": "image", "height": 2, "width": 3, "channels": 3},
        "style": {"kind": "vector", "size": 2},
        "marks": {"kind": "labels", "num_classes": 2},
        "tags": {"kind": "labels", "num_classes": 2},
        "true": {"kind": "label", "num_classes": 2},
    }
    assert json.loads(json.dumps(dataset.conditions)) == dataset.conditions
    y, num = dataset.train.y, k.astype(int)
    np.testing.assert_array_equal(y["age"], k[:, None] / 2)
    np.testing.assert_array_equal(y["hue"], num % 3)
    np.testing.assert_array_equal(y["colour"], np.array([3, 2, 0, 1])[num % 4])  # 2 before 10, both before letters
    np.testing.assert_array_equal(y["low"][:, 1, 2, 1], k)
    np.testing.assert_array_equal(y["style"], np.stack([k, np.full(len(k), 0.5)], 1))
    np.testing.assert_array_equal(y["marks"], np.stack([0 * k, k % 2], 1))
    np.testing.assert_array_equal(y["tags"], np.stack([k % 2, 1 + 0 * k], 1))
    np.testing.assert_array_equal(y["true"], 1 - num % 2)
    meaning = "colour: 0 2 greens, 1 10 greens, 2 blue, 3 red"
    assert meaning in dataset.provenance
    assert any(meaning in line for line in log)
    assert (dataset.num_classes, dataset.class_names, len(dataset.test)) == (0, None, 3)


def test_a_csv_table_in_each_split_has_labels_and_given_kinds(tmp_path):
    told(tmp_path / "train", range(3, 12), "csv")
    told(tmp_path / "test", range(3), "csv", row_0={"age": 99.5, "colour": "red"}, row_1={"colour": "10 greens"})
    wanted = {"year": "number", "age": "auto", "low": {"kind": "image", "height": 1, "width": 1, "channels": 1}}
    params = {"conditions": wanted, "label": "colour", "image_size": 4, "channels": 3}
    dataset = load("folder", path=str(tmp_path), **params)
    assert (dataset.class_names, len(dataset.train), len(dataset.test)) == (
        ("2 greens", "10 greens", "blue", "red"),
        9,
        3,
    )
    assert dataset.conditions == {
        "label": {"kind": "label", "num_classes": 4},
        "age": {"kind": "number", "low": 1.5, "high": 5.5},  # of the training rows
        "low": {"kind": "image", "height": 1, "width": 1, "channels": 1},
        "year": {"kind": "number", "low": 2003.0, "high": 2011.0},
    }
    np.testing.assert_array_equal(dataset.test.y["label"], [3, 1, 0])
    np.testing.assert_array_equal(dataset.test.y["year"], [[2000], [2001], [2002]])
    alone = load("folder", path=str(tmp_path), label="hue")  # the images below low/ are none of the set
    assert (alone.conditions, alone.class_names, len(alone.train)) == (None, ("0", "1", "2"), 9)
    np.testing.assert_array_equal(alone.test.y, [0, 1, 2])
    assert len(load("folder", path=str(tmp_path), conditions=("low",), image_size=4).train.y["low"][0]) == 4


def test_a_table_in_the_root_speaks_of_class_folders(tmp_path, log):
    for name, numbers in (("cats", range(5)), ("dogs", range(10, 15))):
        for k in numbers:
            paint(tmp_path / name / f"{k}.png", (k, 0, 0))
    rows = [{"file_name": f"./cats/{k}.png", "age": k + 0.5} for k in range(5)]
    write(tmp_path, rows + [{"file_name": f"dogs\\{k}.png", "age": 3} for k in range(10, 14)])
    dataset = load("folder", path=str(tmp_path), conditions=("age",))
    assert (dataset.class_names, len(dataset.train), len(dataset.test)) == (("cats", "dogs"), 7, 2)
    assert list(dataset.conditions) == ["label", "age"]
    assert any("1 of 10 images have no row in metadata.jsonl and are left out: dogs/14.png" in line for line in log)
    plain = load("folder", path=str(tmp_path))
    assert (plain.conditions, len(plain.train) + len(plain.test)) == (None, 10)


def test_a_further_image_that_cannot_be_read_costs_its_example(tmp_path, log):
    told(tmp_path / "set", range(8))
    paint(tmp_path / "set" / "low" / "99.png")  # of no row, and in a folder of further images: none of the set
    (tmp_path / "set" / "low" / "5.png").write_bytes(b"damaged")
    (tmp_path / "set" / "3.png").write_bytes(b"damaged")
    dataset = load("folder", path=str(tmp_path / "set"), conditions=("low", "age"))
    for split in (dataset.train, dataset.test):
        k = split.images[:, 0, 0, 0]
        assert not {3, 5} & set(k.tolist())
        np.testing.assert_array_equal(split.y["low"][:, 0, 0, 1], k)
        np.testing.assert_array_equal(split.y["age"][:, 0], k / 2)
    assert (len(dataset.train) + len(dataset.test), "2 unreadable files left out" in dataset.provenance) == (6, True)


def test_decoded_images_are_kept_and_the_same_set_is_the_same_wherever_it_lies(tmp_path, cache):
    digests = []
    for where in ("one", "two"):
        told(tmp_path / where / "set", range(8))
        digests.append(load("folder", path=str(tmp_path / where / "set"), conditions=("low", "age")).digest())
        kept = sorted(path.name for path in cache.glob("decoded/set*"))
    assert digests[0] == digests[1]
    assert len(kept) == 2  # images and further images, decoded once
    assert load("folder", path=str(tmp_path / "one" / "set"), conditions=("low", "year")).digest() != digests[0]


BAD = [
    ({}, {"conditions": ("weight",)}, "there is no column 'weight', only: file_name, age"),
    ({}, {"label": "species"}, "there is no column 'species', only: file_name"),
    ({}, {"conditions": {"colour": "number"}}, r"line 1: column 'colour' must be a number, got 'red'"),
    ({}, {"conditions": {"age": "labels"}}, "'age' must be a list of numbers or a list of texts, got '0.0'"),
    (
        {"row_2": {"age": None}},
        {"conditions": ("age",)},
        r"'age' is empty in 1 of 6 rows \(metadata.jsonl line 3\): fill",
    ),
    (
        {"row_2": {"age": "old"}},
        {"conditions": ("age",)},
        "'age' has a number in .* line 1, but 'old' in .* line 3: corr",
    ),
    ({"row_2": {"age": {"a": 1}}}, {"conditions": ("age",)}, "line 3: column 'age' must be a text or a number or"),
    ({"row_2": {"age": float("nan")}}, {"conditions": ("age",)}, "line 3: column 'age' must be"),
    ({"row_2": {"style": [1]}}, {"conditions": ("style",)}, "lists of .* line 1 and .* line 3 differ in length"),
    ({"row_2": {"hue": -1}}, {"conditions": ("hue",)}, "condition 'hue': labels must count from 0, got -1"),
    (
        {"row_2": {"file_name": "x.png"}},
        {"conditions": ("age",)},
        r"1 of 6 rows name a 'file_name' that is not there: x",
    ),
    (
        {"row_2": {"low_file_name": "low/x.png"}},
        {"conditions": ("low",)},
        r"1 of 6 rows .* 'low_file_name' .*: low/x.png",
    ),
    ({"row_2": {"low_file_name": ""}}, {"conditions": ("low",)}, "line 3: 'low_file_name' must be the path of a file"),
    ({"row_2": {"file_name": "1.png"}}, {"conditions": ("age",)}, r"line 3 is of 1.png, as metadata.jsonl line 2 is"),
    ({}, {"conditions": ("label",)}, "say label='label'"),
]


@pytest.mark.parametrize(("changes", "params", "words"), BAD)
def test_what_is_wrong_is_said_in_a_line(tmp_path, changes, params, words):
    told(tmp_path, range(6), **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        load("folder", path=str(tmp_path), **params)
    assert "\n" not in str(caught.value)


def test_further_images_of_different_sizes_need_a_size(tmp_path):
    told(tmp_path, range(6))
    paint(tmp_path / "low" / "2.png", size=(9, 9))
    with pytest.raises(ValueError, match=r"condition 'low': images of different sizes: .* set image_size"):
        load("folder", path=str(tmp_path), conditions=("low",))
    sized = {"low": {"kind": "image", "height": 2, "width": 2}}
    assert load("folder", path=str(tmp_path), conditions=sized).train.y["low"].shape[1:] == (2, 2, 3)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "metadata.parquet",
            "",
            "there is no table metadata.csv or metadata.jsonl in .*; metadata.parquet is of another",
        ),
        ("metadata.csv", "name,age\n0.png,1\n", "metadata.csv line 2: there is no column 'file_name', only: name, age"),
        ("metadata.csv", "file_name;age\n0.png;1\n", "no column 'file_name', only: file_name;age"),
        ("metadata.csv", "file_name,age\n0.png,1,2\n", "line 2 has 3 cells, the first line 2: separate"),
        ("metadata.csv", "file_name,age,age\n0.png,1,2\n", "two columns are called 'age'"),
        ("metadata.csv", 'file_name,age\n"0.png,1\n', "metadata.csv line 2: unexpected end of data"),
        ("metadata.csv", "file_name,age\n", "has no rows"),
        ("metadata.jsonl", '{"file_name": "0.png"\n', "metadata.jsonl line 1 is no JSON"),
        ("metadata.jsonl", "\n[1]\n", "metadata.jsonl line 2 is no JSON object"),
        ("metadata.csv", b"file_name,age\n\xff.png,1\n", "cannot be read as UTF-8 text"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, name, text, words):
    paint(tmp_path / "0.png")
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        load("folder", path=str(tmp_path), conditions=("age",))
    assert "\n" not in str(caught.value)


def test_two_tables_in_one_folder_are_refused(tmp_path):
    told(tmp_path, range(3))
    told(tmp_path, range(3), "csv")
    with pytest.raises(ValueError, match=r"holds both metadata\.csv and metadata\.jsonl: leave one"):
        load("folder", path=str(tmp_path), conditions=("age",))


def test_a_class_or_a_label_of_test_images_alone(tmp_path, log):
    told(tmp_path / "train", range(6))
    told(tmp_path / "test", range(3), row_1={"colour": "violet", "hue": 9})
    with pytest.raises(ValueError, match="only test images are of class 'violet'"):
        load("folder", path=str(tmp_path), label="colour")
    dataset = load("folder", path=str(tmp_path), conditions=("colour", "hue"))
    assert dataset.conditions["colour"]["num_classes"] == 5
    assert any("condition 'colour': of its labels 4 no training image has one" in line for line in log)
    assert any("condition 'hue': of the labels 0 to 9 only 4 occur; is it a number?" in line for line in log)


def test_images_without_any_row_are_named(tmp_path):
    paint(tmp_path / "train" / "0.png")
    told(tmp_path / "test", range(3))
    with pytest.raises(ValueError, match=r"no training image has a row in test/metadata\.jsonl, such as train/0\.png"):
        load("folder", path=str(tmp_path), conditions=("age",))


def test_with_a_column_of_labels_folders_are_no_classes(tmp_path):
    paint(tmp_path / "a.png")
    paint(tmp_path / "more" / "b.png")
    names = ("a.png", "more/b.png")
    write(tmp_path, [{"file_name": name, "species": "wren"} for name in names])
    dataset = load("folder", path=str(tmp_path), label="species")
    assert (dataset.class_names, len(dataset.train), len(dataset.test)) == (("wren",), 1, 1)
