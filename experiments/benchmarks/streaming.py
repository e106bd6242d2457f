"""Images per second that a core decodes, beside Pillow's own rate; memory over an epoch; the start of a large folder.

    taskset -c 1 python experiments/benchmarks/streaming.py                     # makes its own files
    taskset -c 1 python experiments/benchmarks/streaming.py --folder=PATH --size=32 --only=folder
    taskset -c 1 python experiments/benchmarks/streaming.py --files=200000 --only=start

Pillow's rate is a loop over the same files: open, crop and resize as `fmd.data.images` does, copy to an array. The
rates of fmd are those of one reader of a stream, batches and all. All are measured in turns, in CPU seconds.

Cores that a step time needs: batch size / (step time x images per second of a core).
"""

import argparse
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from bench import machine, save, table
from PIL import Image, ImageOps

from fmd.data import load
from fmd.data.prepare import prepare
from fmd.data.reading import Read

BATCH, ROUNDS = 64, 3


def photo(random: np.random.Generator, height: int, width: int) -> Image.Image:
    """Smooth colours with a little noise, about as many bytes per pixel as a photograph of quality 90."""
    small = random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray((smooth + random.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))


def make_folder(folder: Path, count: int, height: int, width: int) -> Path:
    random = np.random.default_rng(0)
    for split, images in (("train", count), ("test", 16)):
        for number in range(images):
            file = folder / split / f"class{number % 4}" / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            photo(random, height, width).save(file, quality=90)
    return folder


def by_pillow(files: list[Path], size: int) -> None:
    for file in files:
        with Image.open(file) as image:
            np.array(ImageOps.fit(image.convert("RGB"), (size, size), method=Image.Resampling.LANCZOS))


def per_second(read, count: int) -> float:
    start = time.process_time()
    read()
    return count / (time.process_time() - start)


def rates(name: str, folder: Path, size: int, count: int) -> dict[str, object]:
    """Rates of a folder: Pillow's, of the stream, and of the same images prepared."""
    streamed = load("folder", path=str(folder), image_size=size, stream=True, test_images=16)
    with tempfile.TemporaryDirectory() as out:
        prepare(streamed, Path(out) / "prepared", quiet=True)
        prepared = load("array_record", path=str(Path(out) / "prepared"))
        files = [streamed.train.decode.index.path(streamed.train.source[k]) for k in range(count)]
        found: dict[str, list[float]] = {"pillow": [], "folder": [], "array_record": []}
        readers = {
            kind: Read(split.source, split.decode, 0, BATCH, 0, BATCH, None, dict(split.limits))
            for kind, split in (("folder", streamed.train), ("array_record", prepared.train))
        }
        for _ in range(ROUNDS):
            found["pillow"].append(per_second(lambda: by_pillow(files, size), count))
            for kind, read in readers.items():
                found[kind].append(per_second(lambda read=read: list(map(read, range(count // BATCH))), count))
    best = {kind: max(each) for kind, each in found.items()}
    return {
        "files": name,
        **{f"{kind}, images/s": round(rate) for kind, rate in best.items()},
        "folder / pillow": round(best["folder"] / best["pillow"], 2),
        "array_record / pillow": round(best["array_record"] / best["pillow"], 1),
    }


def memory(folder: Path, size: int) -> dict[str, object]:
    """Memory of the process in MB after one epoch and after four, of a stream by threads."""
    split = load("folder", path=str(folder), image_size=size, stream=True, test_images=16).train
    stream, after = split.stream(batch_size=BATCH, seed=0), []
    for _ in range(4):
        for _ in range(len(split) // BATCH):
            next(stream)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        after.append(round(pages * resource.getpagesize() / 1e6))
    stream.close()
    return {"epoch": "MB in memory", **{str(k + 1): value for k, value in enumerate(after)}}


def start(folder: Path, count: int) -> list[dict[str, object]]:
    """Seconds until the first batch of a folder of `count` links to few files: cold, then with the index kept."""
    sources = sorted((folder / "train").glob("*/*.jpg"))
    with tempfile.TemporaryDirectory(dir=folder.parent) as many:
        for split, images in (("train", count), ("test", 1000)):
            for number in range(images):
                file = Path(many) / split / f"n{number % 1000:04d}" / f"{number}.jpg"
                if number < 1000:
                    file.parent.mkdir(parents=True)
                os.link(sources[number % len(sources)], file)
        rows = []
        for which in ("cold", "warm"):
            wall, used = time.time(), time.process_time()
            split = load("folder", path=many, image_size=64, stream=True, test_images=100).train
            stream = split.stream(batch_size=BATCH, seed=0)
            next(stream)
            took = {"seconds": round(time.time() - wall, 1), "of the CPU": round(time.process_time() - used, 1)}
            rows.append({"files": count, "start": which, **took})
            stream.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="measure this folder of images in place of made ones")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=128, help="images of each measurement")
    parser.add_argument("--files", type=int, default=200_000, help="of the large folder")
    parser.add_argument("--only", choices=["folder", "memory", "start"])
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="streaming-"))
    os.environ["FMD_DATA_DIR"] = str(work / "cache")
    found: dict[str, list[dict[str, object]]] = {}
    try:
        same = make_folder(work / "same", given.count, 256, 256)
        if given.only in (None, "folder"):
            folders = {"JPEG 256 x 256": same}
            if given.folder:
                folders = {given.folder.name: given.folder}
            else:
                folders["JPEG 375 x 500"] = make_folder(work / "larger", given.count, 375, 500)
            found["rates"] = [rates(name, folder, given.size, given.count) for name, folder in folders.items()]
        if given.only in (None, "memory"):
            found["memory"] = [memory(same, given.size)]
        if given.only in (None, "start"):
            found["start"] = start(same, given.files)
        for rows in found.values():
            print(table(list(rows[0]), [list(row.values()) for row in rows]))
        save(given.json, found, machine())
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
