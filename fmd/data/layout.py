"""The image files of a folder by split and class.

    PATH/cats/a.jpg  PATH/dogs/b.png       a class per sub-folder, numbered in natural order (2 before 10)
    PATH/a.jpg  PATH/b.png                 no classes
    PATH/train/...  PATH/test/...          either of these in each split, by any of their usual names, in any case
    PATH/cats/train/...  PATH/cats/test/.. splits in each class

Hidden files do not count. Each real folder is read once, whatever links lead to it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fmd.data.file_names import SUFFIXES, is_folder, is_image, named_image, natural, role, roles, visible
from fmd.files import printable, some

REPEATED = "folders that are read already by another name"

Listing = list[tuple[Path, int]]  # image files with their labels


@dataclass(frozen=True)
class Found:
    """The files of a folder.

    Attributes:
        classes: names of the class folders in the order of their labels; empty without classes.
        train, test: files with their labels; `test` is None where a part of `train` has to be held out.
        passed: reason -> what was not taken -> how many files.
    """

    classes: tuple[str, ...]
    train: Listing
    test: Listing | None
    passed: dict[str, Counter[str]]

    @property
    def listing(self) -> Listing:
        """All files with their labels, those of `train` first."""
        return [*self.train, *(self.test or [])]

    @property
    def files(self) -> list[Path]:
        """The files of `listing`."""
        return [file for file, _ in self.listing]

    def only(self, kept: Callable[[Path], bool]) -> "Found":
        """The findings with the files that are kept alone; without test files a part is to be held out."""
        train, test = ([one for one in files if kept(one[0])] for files in (self.train, self.test or []))
        return replace(self, train=train, test=test or None)

    def not_taken(self) -> str:
        """The files that were not taken, counted by reason. Empty where all were taken."""
        lines = []
        for reason, counts in sorted(self.passed.items()):
            if counts.total():
                names = [f"{name} {n}" if n > 1 else name for name, n in counts.most_common()]
                lines.append(f"{counts.total()} {reason} ({some(names, 4)})")
        return "; ".join(lines)


@dataclass(frozen=True)
class Folder:
    """A folder with its images and the folders below it."""

    path: Path
    files: list[Path]
    folders: list["Folder"]

    @cached_property
    def images(self) -> list[Path]:
        """All image files at any depth, sorted."""
        return sorted([*self.files, *(file for folder in self.folders for file in folder.images)])

    def classes(self) -> list["Folder"]:
        """The folders below that hold images."""
        return [folder for folder in self.folders if folder.images]


@dataclass
class Finder:
    """Finds the files of one folder; `passed` gathers what is not taken.

    Files and folders `beside` are none of the set. Unless `by_class`, folders are no classes.
    """

    root: Path
    beside: Collection[Path] = ()
    by_class: bool = True
    passed: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    seen: dict[tuple[int, int], tuple[Path, int]] = field(default_factory=dict)
    """Device and number of each folder, with its path and when it was changed last."""

    def find(self, folder: Path) -> Found:
        """The files of `folder`, in whichever layout it has."""
        names = sorted((entry.name for entry in visible(folder) if is_folder(entry)), key=natural)
        known = roles(names)
        trains = [name for name in names if known.get(name) == 0]
        tests = sorted((name for name in names if known.get(name)), key=known.__getitem__)
        if trains and tests:
            train = self.unwrapped(self.scan(folder / trains[0]))
            if train.images:
                others = [name for name in names if name not in (trains[0], *tests)]
                return self.in_splits(folder, train, tests, others)
            self.start_again()
        whole = self.scan(folder)
        filled = whole.classes()
        if filled and not whole.files and all(role(below.path.name) for below in filled):
            raise ValueError(
                f"{printable(folder)} has no training images, only {', '.join(self.show(f.path) for f in filled)}; to "
                f"train on one of these give its own path"
            )
        if len(filled) == 1 and not whole.files:
            if role(filled[0].path.name) == 0:
                return self.in_splits(folder, self.unwrapped(filled[0]), [], [])
            inner = set(roles([below.path.name for below in filled[0].classes()]).values())
            if 0 in inner and inner & {1, 2}:  # an archive unpacked into a folder of its own
                self.start_again()
                return self.find(filled[0].path)
        return self.in_classes(whole) or Found(*self.listed(whole), None, dict(self.passed))

    def start_again(self) -> None:
        """Forget what was seen."""
        self.seen.clear()
        self.passed.clear()

    def in_splits(self, folder: Path, train: Folder, tests: list[str], others: list[str]) -> Found:
        """The layout with a folder for each split. The first of `tests` that can serve is the test split."""
        classes, listing = self.listed(train)
        test: Listing | None = None
        for name in tests:
            candidate = self.unwrapped(self.scan(folder / name))
            place, count = self.show(candidate.path), len(candidate.images)
            names = [below.path.name for below in candidate.classes()]
            strange = [name for name in names if name not in classes]
            if not count:
                self.passed["folders without images"][place] += 1
            elif test is not None:
                self.passed["images of further splits"][place] += count
            elif not classes:
                test = [(file, 0) for file in candidate.images]
            elif len(strange) == len(names):
                self.passed["images of splits without labels"][place] += count
            elif strange:
                raise ValueError(
                    f"the class folders in {printable(candidate.path)} differ from those in {printable(train.path)}: "
                    f"only there is {printable(strange[0])}; both need the same ones"
                )
            else:
                self.passed["images beside class folders"].update(map(self.show, candidate.files))
                test = _labelled(candidate, classes)
        for name in others:
            self.passed["images in folders beside the splits"][name] += len(self.scan(folder / name).images)
        files = [folder / entry.name for entry in visible(folder) if not is_folder(entry)]
        strays = [self.show(path) for path in files if path not in self.beside and is_image(path)]
        self.passed["images beside the splits"].update(strays)
        return Found(classes, listing, test, dict(self.passed))

    def in_classes(self, whole: Folder) -> Found | None:
        """The layout with training and test folders in each class. None for other layouts."""
        classes, train, test = whole.classes(), Listing(), Listing()
        if not classes or whole.files:
            return None
        chosen = []
        for label, one in enumerate(classes):
            below = {role(folder.path.name): folder for folder in reversed(one.classes())}
            test_folder = below.get(1) or below.get(2)
            if 0 not in below or test_folder is None or one.files:
                return None
            train += [(file, label) for file in below[0].images]
            test += [(file, label) for file in test_folder.images]
            chosen += [below[0].path, test_folder.path]
        for other in [folder for one in classes for folder in one.classes() if folder.path not in chosen]:
            self.passed["images of further splits"][self.show(other.path)] += len(other.images)
        return Found(self.class_names(whole), train, test, dict(self.passed))

    def listed(self, folder: Folder) -> tuple[tuple[str, ...], Listing]:
        """The class names of one split and its files with their labels."""
        classes = self.class_names(folder) if self.by_class else ()
        listing = _labelled(folder, classes) if classes else [(file, 0) for file in folder.images]
        if not listing:
            suffixes = ", ".join(SUFFIXES)
            raise FileNotFoundError(f"no images in {printable(folder.path)}: it needs files ending in {suffixes}")
        return classes, listing

    def class_names(self, folder: Folder) -> tuple[str, ...]:
        """Names of the class folders in natural order. Empty for a flat folder."""
        classes = tuple(below.path.name for below in folder.classes())
        if classes and folder.files:
            raise ValueError(
                f"{printable(folder.path)} holds images beside class folders ({printable(classes[0])}, ...): "
                f"move them into class folders"
            )
        for name in [self.show(below.path) for below in folder.folders if classes and not below.images]:
            if name not in self.passed[REPEATED]:
                self.passed["class folders without images"][name] += 1
        return classes

    def unwrapped(self, folder: Folder) -> Folder:
        """The folder, or the only one in it where both names are equal. Some archives unpack so."""
        below = folder.classes()
        same = len(below) == 1 and below[0].path.name == folder.path.name and not folder.files
        return self.unwrapped(below[0]) if same else folder

    def scan(self, path: Path) -> Folder:
        """The folder at `path` with all folders below it. It is empty where it was read by another name."""
        files: list[Path] = []
        below: list[Path] = []
        try:
            stat = path.stat()
            if (stat.st_dev, stat.st_ino) in self.seen:
                self.passed[REPEATED][self.show(path)] += 1
                return Folder(path, [], [])
            self.seen[stat.st_dev, stat.st_ino] = path, stat.st_mtime_ns
            for listed in visible(path):
                entry = path / listed.name
                if entry in self.beside:
                    continue
                if is_folder(listed):
                    below.append(entry)
                elif (named_image(listed.name) and not listed.is_symlink() and listed.is_file()) or is_image(entry):
                    files.append(entry)
                elif entry.is_file():
                    self.passed["files that are no images"][printable(entry.suffix.lower() or entry.name)] += 1
                else:
                    what = "broken links" if entry.is_symlink() else "special files, such as sockets"
                    self.passed[what][self.show(entry)] += 1
            # Real folders first: what a link leads to is then read in its own place.
            below.sort(key=lambda entry: (entry.is_symlink(), natural(entry.name)))
        except PermissionError as error:
            raise PermissionError(f"folder {printable(path)} cannot be read: check its permissions") from error
        found = [self.scan(entry) for entry in below]
        return Folder(path, sorted(files), sorted(found, key=lambda folder: natural(folder.path.name)))

    def show(self, path: Path) -> str:
        """The path below the root, for messages."""
        return printable(path.relative_to(self.root))


def _labelled(folder: Folder, classes: tuple[str, ...]) -> Listing:
    numbers = {name: label for label, name in enumerate(classes)}
    return [(file, numbers[one.path.name]) for one in folder.classes() for file in one.images]


def find(folder: Path, beside: Collection[Path] = (), by_class: bool = True) -> Found:
    """The files of a folder, by split and class.

    Args:
        folder: where to look.
        beside: files and folders that are none of the set, such as further images that a table names.
        by_class: False where the names of folders are no classes.

    Raises:
        FileNotFoundError: for a missing folder or one without images.
        PermissionError: for a folder that cannot be read.
        ValueError: for images beside class folders, and for classes that only the test split has.
    """
    return Finder(folder, beside, by_class).find(folder)
