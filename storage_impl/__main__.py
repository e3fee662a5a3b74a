"""The command `storage-impl`, also available as ``python -m storage_impl``.

Exit codes::

    0    done
    1    refused or failed; the message says why
    2    wrong arguments
    3    the store is damaged
    130  interrupted

A command that fails leaves its target as it was: absent, or with its old content. Ctrl-C while the
target is being replaced may leave the new content, complete. If only the output cannot be written,
the exit code is 1 and the target is made.
"""

import argparse
import glob
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any

import storage_impl
from storage_impl import (
    BACKENDS,
    InvalidInputError,
    StorageError,
    StoreExistsError,
    StoreLockedError,
    StoreNotFoundError,
    _folders,
    codecs,
)
from storage_impl._files import Directory
from storage_impl._folders import BadFileError
from storage_impl._lock import NAME as LOCK
from storage_impl._lock import WriterLock
from storage_impl._progress import Progress
from storage_impl._sharded import ShardedStore

DAMAGED = 3
INTERRUPTED = 130

_REPLACED = "-replaced"  # the end of the name of the old target until it is removed
_LABELS = "labels.json"  # in the store's directory: the subfolder's name for each label
_LABELS_BYTES = 64 << 20  # the largest file that is read


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = vars(_parser().parse_args(arguments))
    command: Callable[..., int] = options.pop("command")
    try:
        code = command(**options)
        _flush()
        return code
    except storage_impl.DamagedStoreError as error:
        print(f"storage-impl: {error}", file=sys.stderr)
        return DAMAGED
    except (StorageError, BadFileError, OSError) as error:
        print(f"storage-impl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("storage-impl: interrupted", file=sys.stderr)
        return INTERRUPTED


def _flush() -> None:
    """Write the output now, because Python has an exit code of its own for what fails later."""
    try:
        print(end="", flush=True)  # not by a method, because a closed output is None
    except OSError:
        # Python tries again at its end, where this output then goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="storage-impl",
        description="Store labelled images on disk: as PNG files, in LMDB or in HDF5.",
        epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong arguments, 3 the store is "
        "damaged, 130 interrupted.",
    )
    parser.add_argument(
        "--version", action="version", version=f"storage-impl {storage_impl.__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[..., int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function)
        return command

    reading = add("import", import_folder, "create a store from a folder of images")
    reading.add_argument(
        "folder", type=Path, help="its subfolders, sorted by name, become the labels 0, 1, ..."
    )
    reading.add_argument("target", type=Path, metavar="STORE", help="the store to create")
    _add_format(
        reading,
        "lmdb",
        "keep: PNG, JPEG and WebP files, unchanged; default: keep or, with --size, raw (png for "
        "the png backend)",
    )
    reading.add_argument(
        "--size",
        type=_size,
        metavar="SIDE or HEIGHTxWIDTH",
        help="crop each image around its centre to this aspect ratio, resize it to this many "
        "pixels, and convert it to RGB",
    )
    reading.add_argument(
        "--skip-bad", action="store_true", help="skip files that cannot be read, and list them"
    )

    converting = add("convert", convert, "copy a store or dataset to a new store")
    converting.add_argument(
        "source", type=Path, metavar="STORE", help="the store or dataset to read"
    )
    converting.add_argument("target", type=Path, metavar="STORE", help="the store to create")
    _add_format(
        converting,
        None,
        "keep: same as the source, or an error if the backend does not support that; default: same "
        "as the source if the backend supports it, otherwise the backend's default",
    )
    converting.add_argument(
        "--shards", type=_positive, metavar="N", help="write a dataset of N stores, in parallel"
    )

    verifying = add("verify", verify, "compare every image of a store with its checksum")
    verifying.add_argument("store", type=Path, metavar="STORE")
    verifying.add_argument("--json", action="store_true", dest="as_json", help="print JSON")

    telling = add("info", info, "show what a store holds")
    telling.add_argument("store", type=Path, metavar="STORE")
    telling.add_argument("--json", action="store_true", dest="as_json", help="print JSON")

    exporting = add("export", export, "write the images of a store as files")
    exporting.add_argument("store", type=Path, metavar="STORE")
    exporting.add_argument("target", type=Path, metavar="FOLDER", help="the folder to create")
    for command in (reading, converting, exporting):
        command.add_argument(
            "--overwrite", action="store_true", help="replace the target if it exists"
        )
    return parser


def _add_format(parser: argparse.ArgumentParser, backend: str | None, encoding: str) -> None:
    names = ["keep", *codecs.ENCODINGS[:-1]]
    parser.add_argument(
        "--backend",
        choices=list(BACKENDS),
        default=backend,
        help="default: " + (backend or "same as the source"),
    )
    parser.add_argument("--encoding", choices=names, help=encoding)


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    return _positive(height), _positive(width if cross else height)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


# -- commands ------------------------------------------------------------------------------------


def import_folder(
    folder: Path,
    target: Path,
    backend: str,
    encoding: str | None,
    size: tuple[int, int] | None,
    skip_bad: bool,
    overwrite: bool,
) -> int:
    """Create a store from a folder of images."""
    if encoding == "keep" and size is not None:
        raise InvalidInputError(
            "--encoding keep cannot resize files; leave out --size or choose another encoding"
        )
    keep = encoding == "keep" or (encoding is None and size is None)
    found = _folders.look(folder)
    if not found.files:
        raise InvalidInputError(f"{folder} contains no files; choose a folder of images")
    bad: list[BadFileError] = []

    def on_bad(error: BadFileError) -> None:
        if not skip_bad:
            raise BadFileError(f"{error}; use --skip-bad to skip such files")
        bad.append(error)

    load: Any = _folders.kept if keep else partial(_folders.pixels, size=size)
    with _aside(target, overwrite) as aside, Progress(len(found.files)) as progress:
        kind: dict[str, Any] = {
            "image_shape": None if size is None else (*size, 3),
            "encoding": "mixed" if keep else encoding,
        }
        with storage_impl.create_store(aside, backend, **kind) as store:
            images, labels = tee(progress.count(_folders.read(found, load, on_bad)))
            write: Any = store.write_encoded if keep else store.write_many
            write((image for image, _ in images), (label for _, label in labels))
            count = len(store)
        if not count:
            raise BadFileError(
                f"{bad[0]}; none of the {len(found.files):,} files in {folder} is an image"
            )
        if found.names:
            (aside / _LABELS).write_text(json.dumps(found.names) + "\n")
    for error in bad:
        print(f"skipped {error}", file=sys.stderr)
    skipped = f", {len(bad):,} skipped" if bad else ""
    labels_found = len(found.names) or 1
    noun = "label" if labels_found == 1 else "labels"
    print(f"{target}: {count:,} images, {labels_found:,} {noun}{skipped}")
    return 0


def convert(
    source: Path,
    target: Path,
    backend: str | None,
    encoding: str | None,
    shards: int | None,
    overwrite: bool,
) -> int:
    """Copy a store or dataset to a new store or dataset."""
    with storage_impl.open_store(source) as store:
        backend = backend or store.backend
        count, image_shape, stored = len(store), store.image_shape, store.encoding
    if encoding in (None, "keep"):
        accepted = BACKENDS[backend].encodings
        if encoding == "keep" and stored not in accepted:
            raise InvalidInputError(
                f"the {backend} backend does not support the encoding {stored!r}; choose an "
                "encoding other than keep"
            )
        encoding = stored if stored in accepted else None
    as_stored = encoding == stored != "raw"
    parts = storage_impl.shards.split(source, shards or 1, encoded=as_stored)
    kind: dict[str, Any] = {"image_shape": image_shape, "encoding": encoding}
    with _aside(target, overwrite) as aside, Progress(count) as progress:
        if shards is None:
            with storage_impl.create_store(aside, backend, **kind) as made:
                images, labels = tee(progress.count(parts[0]))
                write: Any = made.write_encoded if as_stored else made.write_many
                write((image for image, _ in images), (label for _, label in labels))
        else:
            storage_impl.shards.write_shards(
                aside, parts, backend=backend, progress=progress.advance, **kind
            )
        if (source / _LABELS).is_file():
            shutil.copyfile(source / _LABELS, aside / _LABELS)
    print(f"{target}: {count:,} images")
    return 0


def verify(store: Path, as_json: bool) -> int:
    """Compare every image with its checksum."""
    damaged: list[int] = []
    problem = None
    with storage_impl.open_store(store, verify=True) as opened:
        count = len(opened)
        try:
            with Progress(count) as progress:
                opened.verify(progress=progress.advance)
        except storage_impl.DamagedImageError as error:
            damaged, problem = list(error.indices), str(error)
        except storage_impl.DamagedStoreError as error:
            problem = str(error)
    if as_json:
        report = {"path": str(store), "images": count, "sound": problem is None}
        print(json.dumps(report | {"damaged": damaged, "problem": problem}))
    elif problem is None:
        print(f"{store}: {count:,} images, all as they were written")
    else:
        print(f"{store}: {problem}")
    return 0 if problem is None else DAMAGED


def info(store: Path, as_json: bool) -> int:
    """Show what a store holds."""
    with storage_impl.open_store(store) as opened:
        labels = opened.read_labels()
        usage = opened.disk_usage()
        shards = len(opened.shards) if isinstance(opened, ShardedStore) else None
        library = storage_impl.BACKENDS[opened.backend].distribution
        facts: dict[str, Any] = {
            "path": str(opened.path),
            "backend": opened.backend,
            "encoding": opened.encoding,
            "images": len(opened),
            "image_shape": opened.image_shape,
            "labels": len(set(labels.tolist())),
            "shards": shards,
            "durable": opened.durable,
            "apparent_bytes": usage.apparent,
            "allocated_bytes": usage.allocated,
            "versions": {
                "storage_impl": storage_impl.__version__,
                library: importlib.metadata.version(library),
                "Python": platform.python_version(),
            },
        }
    if as_json:
        print(json.dumps(facts))
        return 0
    shape = facts["image_shape"]
    facts["image_shape"] = (
        "differs from image to image"
        if shape is None
        else "{} x {} pixels, {} channels".format(*shape)
    )
    facts["versions"] = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    for name, value in facts.items():
        if value is not None:
            number = f"{value:,}" if type(value) is int else str(value)
            print(f"{name.replace('_', ' '):<16} {number}")
    return 0


def export(store: Path, target: Path, overwrite: bool) -> int:
    """Write the images of a store as files."""
    with storage_impl.open_store(store, verify=True) as opened:
        count = len(opened)
        with _aside(target, overwrite) as aside, Progress(count) as progress:
            lock = _locked(aside)  # shows whether this command still runs
            for _ in progress.count(_folders.write(opened, aside, _names(opened.path))):
                pass
            lock.release()
            (aside / LOCK).unlink()
    print(f"{target}: {count:,} images")
    return 0


# -- the target ----------------------------------------------------------------------------------


@contextmanager
def _aside(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path; at the end, rename it to the target, or remove it after an error."""
    target = Path(os.path.abspath(target))
    if not target.parent.is_dir():
        raise StoreNotFoundError(f"{target.parent} is not a directory; create it first")
    beside = f".{target.name}.making-"
    _remove_leftovers(target, beside)
    there = os.path.lexists(target)
    if there and not overwrite:
        raise StoreExistsError(f"{target} exists; use --overwrite to replace it")
    if there and not _is_made_here(target):
        raise StoreExistsError(
            f"{target} is neither a store nor an exported folder, so --overwrite does not replace "
            "it; remove it by hand, or choose another target"
        )
    aside = target.with_name(beside + secrets.token_hex(8))
    replaced = target.with_name(aside.name + _REPLACED)
    try:
        yield aside
        if there:
            os.rename(target, replaced)
        os.rename(aside, target)
        Directory(target.parent).sync()
    finally:
        try:
            _settle(target, aside, replaced)
        except BaseException:  # on Ctrl-C, finish that first
            _settle(target, aside, replaced)
            raise


def _locked(aside: Path) -> WriterLock:
    """Make a folder, and lock it."""
    while True:
        aside.mkdir()
        with suppress(FileNotFoundError):  # removed as a leftover before it was locked
            return WriterLock(Directory(aside))


def _settle(target: Path, aside: Path, replaced: Path) -> None:
    """Put the old target back unless there is a new one, and remove what is left."""
    if os.path.lexists(replaced) and not os.path.lexists(target):
        os.rename(replaced, target)
    for each in (aside, replaced):
        shutil.rmtree(each, ignore_errors=True)


def _is_made_here(target: Path) -> bool:
    """Whether the target is a store, a dataset or a folder of exported files only."""
    if target.is_symlink():
        return False
    if (target / "store.json").is_file() or (target / "shards.json").is_file():
        return True
    files = [each for each in target.rglob("*") if not each.is_dir()]
    return target.is_dir() and all(_folders.EXPORTED.fullmatch(each.name) for each in files)


def _remove_leftovers(target: Path, beside: str) -> None:
    """Remove what killed commands for the same target left behind, or put it back.

    A command may be killed when the old target has another name and the new one not yet its own.
    """
    for leftover in target.parent.glob(f"{glob.escape(beside)}*"):
        if leftover.name.endswith(_REPLACED):
            if os.path.lexists(target):
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                with suppress(OSError):  # not permitted, or its command has just done so
                    os.rename(leftover, target)
        if not (leftover / LOCK).is_file():
            with suppress(OSError):  # only an empty one: an export that is done has no lock either
                leftover.rmdir()
            continue
        try:
            lock = WriterLock(Directory(leftover))
        except StoreLockedError:
            raise StoreLockedError(
                f"another command is writing to the same target, in {leftover}; wait for it to end"
            ) from None
        shutil.rmtree(leftover, ignore_errors=True)
        lock.release()


def _names(store: Path) -> list[str]:
    """The subfolder names of an imported folder, in the order of the labels."""
    try:
        names = json.loads(Directory(store).read(_LABELS, _LABELS_BYTES))
    except (OSError, ValueError):
        return []
    # The names become folders: ignore the list if one of them leads elsewhere.
    plain = isinstance(names, list) and all(
        type(name) is str and Path(name).name == name and name not in ("", ".", "..")
        for name in names
    )
    return names if plain else []


if __name__ == "__main__":
    sys.exit(main())
