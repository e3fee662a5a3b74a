"""Stores from strangers: a typed error or the right pixels; no code run, no other file touched."""

import json
import os
import pickle
import random
import shutil
import stat
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import pytest
import xxhash
from PIL import Image

from storage_impl import codecs
from storage_impl._image_header import Header
from tests import image_files
from tests.samples import encoding_of, file_of, images_of, labels_of

from .examine import COUNT, is_sound, make, problems, verify
from .tally import FULL, SEED, Tally
from .tool import Op, Server, read_log
from .workload import Variant

SHAPE = (20, 20, 3)
VARIANT = Variant(SHAPE, {})
FIRST = {  # the file that holds the first image
    "png": "images/0000/00000000.png",
    "lmdb": "data.mdb",
    "hdf5": "segments/00000000-00000017.h5",
}
IN_FIRST_SEGMENT = 17


class Hostile:
    """A good store, a copy outside of it, and ways in which the one leads to the other."""

    def __init__(self, scratch: Path, backend: str, variant: Variant = VARIANT) -> None:
        self.root = scratch
        self.path = scratch / "store"
        self.outside = scratch / "outside"
        self.variant = variant
        self.original = scratch / "original"
        make(self.original, backend, variant)
        self.first = self.path / FIRST[backend]

    def restore(self) -> None:
        """Make the store good again, and what is outside of it as it was."""
        for path in (self.path, self.outside):
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(self.original, path)

    def files(self) -> Iterator[Path]:
        """Every file of the store, relative to it; of the images, which are alike, two."""
        for path in sorted(self.original.rglob("*")):
            if path.is_file() and path.suffix != ".png":
                yield path.relative_to(self.original)
        for index in (0, 20):
            image = Path(f"images/0000/{index:08d}.png")
            if (self.original / image).exists():
                yield image

    def directories(self) -> Iterator[Path]:
        """Every directory of the store, relative to it."""
        for path in sorted(self.original.rglob("*")):
            if path.is_dir():
                yield path.relative_to(self.original)

    def examine(
        self,
        faulty: Server,
        tally: Tally,
        what: str,
        before: Callable[[Path], None] | None = None,
    ) -> None:
        """Read, verify and append in a child whose every opening is logged."""
        if what == "as it should be":
            assert faulty.run(is_sound, self.path, self.variant).value is True
        outside = content(self.outside)
        logs = self.root / "log of reading", self.root / "log of the examination"
        found = problems(
            faulty,
            self.path,
            self.variant,
            strict=False,
            before=before,
            root=self.root,
            logs=logs,
        )
        wrong = [] if found is None else [found]
        if content(self.outside) != outside:
            wrong.append("something outside of the store was changed")
        for record in chain.from_iterable(map(read_log, logs)):
            if record.op is not Op.MARK:
                names = (record.path, record.path2)
                wrong += [f"{name} was touched" for name in names if "/outside/" in name]
        tally.add(f"{what}: {wrong}" if wrong else None)


@pytest.fixture
def hostile(scratch: Path, backend: str) -> Hostile:
    """A store that a test turns against its reader."""
    return Hostile(scratch, backend)


def content(directory: Path) -> dict[str, bytes]:
    """All regular files below a directory."""
    return {str(file): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


class Call:
    """When unpickled, makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self._path), "w")


def put_device(path: Path, outside: Path) -> None:
    """Put a device that never ends somewhere."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        path.symlink_to("/dev/zero")


# In place of a file: made at a path, with the same file outside of the store at hand.
SPECIAL: dict[str, Callable[[Path, Path], object]] = {
    "FIFO": lambda path, outside: os.mkfifo(path),
    "socket": lambda path, outside: os.mknod(path, 0o666 | stat.S_IFSOCK),
    "device": put_device,
    "directory": lambda path, outside: path.mkdir(),
    "link to its like": lambda path, outside: path.symlink_to(outside),
    "link to nothing": lambda path, outside: path.symlink_to(outside.with_name("new")),
    "link to /dev/zero": lambda path, outside: path.symlink_to("/dev/zero"),
    "pickle": lambda path, outside: path.write_bytes(pickle.dumps(Call(outside.with_name("run")))),
    "empty": lambda path, outside: path.touch(),
}


def test_special_files(faulty: Server, hostile: Hostile, backend: str, tally: Tally) -> None:
    """FIFO, links, device, socket, directory, pickle and nothing in place of each file."""
    hostile.restore()
    hostile.examine(faulty, tally, "as it should be")
    for name in hostile.files():
        for kind, put in SPECIAL.items():
            hostile.restore()
            (hostile.path / name).unlink()
            put(hostile.path / name, hostile.outside / name)
            hostile.examine(faulty, tally, f"{kind} as {name}")
    for name in hostile.directories():
        hostile.restore()
        shutil.rmtree(hostile.path / name)
        (hostile.path / name).symlink_to(hostile.outside / name)
        hostile.examine(faulty, tally, f"link as {name}")
    tally.check()


def test_corpora(faulty: Server, scratch: Path, backend: str, tally: Tally) -> None:
    """Files made to break decoders, in place of an image, an environment and a segment."""
    corpus = os.environ.get("STORAGE_IMPL_CORPUS")
    if corpus is None:
        pytest.skip("STORAGE_IMPL_CORPUS names no directory of hostile files")
    files = sorted(path for path in Path(corpus).rglob("*") if path.is_file())
    assert files, "there is nothing in STORAGE_IMPL_CORPUS"
    if not FULL:
        files = random.Random(SEED).sample(files, min(len(files), 30))
    # PngSuite's images are of this size: their shape is no reason to refuse them.
    for channels in (1, 3, 4):
        directory = scratch / str(channels)
        directory.mkdir()
        hostile = Hostile(directory, backend, Variant((32, 32, channels), {}))
        for file in files:
            hostile.restore()
            shutil.copyfile(file, hostile.first)
            hostile.examine(faulty, tally, f"{file.name}, {channels} channels")
    tally.check()


MARKERS: dict[str, Any] = {
    "huge image": {"image_shape": [30_000, 30_000, 3]},
    "unbounded image": {"image_shape": [2**40, 2**40, 3]},
    "other sides": {"image_shape": [10, 40, 3]},
    "one channel": {"image_shape": [20, 60, 1]},
    "smaller image": {"image_shape": [10, 20, 3]},
    "empty image": {"image_shape": [0, 20, 3]},
    "fraction": {"image_shape": [20, 20.5, 3]},
    "other backend": {"backend": "png"},
    "another backend": {"backend": "hdf5"},
    "third backend": {"backend": "lmdb"},
    "module as backend": {"backend": "os"},
    "path as backend": {"backend": "../../outside"},
    "list as backend": {"backend": ["png"]},
    "unknown option": {"options": {"colour": 1}},
    "huge option": {"options": {"chunk_images": 2**70, "compress_level": 2**70}},
    "options of no kind": {"options": [1]},
    "text": {"durable": "no"},
    "newer": {"format_version": 2},
    "older": {"format_version": -1},
}
MARKER_BYTES = {
    "deep": b"[" * 4000,
    "long": b'{"format": "' + b"x" * 10**6 + b'"}',
    "long number": b'{"format_version": ' + b"9" * 4000 + b"}",
    "infinite": b'{"format": "storage_impl", "format_version": 1e999}',
    "two bytes a letter": '{"format": "storage_impl"}'.encode("utf-16"),
    "zeros": bytes(300),
}


def test_markers(faulty: Server, hostile: Hostile, backend: str, tally: Tally) -> None:
    """A store.json that says something else than the store is."""
    marker = json.loads((hostile.original / "store.json").read_text())
    cases = {name: json.dumps(marker | change).encode() for name, change in MARKERS.items()}
    for name, text in (cases | MARKER_BYTES).items():
        hostile.restore()
        (hostile.path / "store.json").write_bytes(text)
        hostile.examine(faulty, tally, name)
    tally.check()


# -- PNG ---------------------------------------------------------------------------------------


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def png_files() -> dict[str, bytes]:
    """Files in place of an image of 20 x 20 RGB pixels."""
    image_of = Image.fromarray(images_of(1, SHAPE)[0])

    def header(width: int, height: int, depth: int = 8, colour: int = 2, lace: int = 0) -> bytes:
        return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, lace)

    rows = b"".join(b"\0" + row.tobytes() for row in images_of(1, SHAPE)[0])
    start, data, end = (b"IHDR", header(20, 20)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    bomb = zlib.compress(bytes(300 * 2**20), 1)
    text = b"a\0\0" + zlib.compress(bytes(300 * 2**20), 1)
    files = {
        "as it should be": png(start, data, end),
        "declares 10^9 pixels": png((b"IHDR", header(30_000, 30_000)), data, end),
        "declares most pixels": png((b"IHDR", header(2**31 - 1, 2**31 - 1)), data, end),
        "no pixels": png((b"IHDR", header(0, 0)), data, end),
        "16 bits": png((b"IHDR", header(20, 20, 16)), data, end),
        "palette": png((b"IHDR", header(20, 20, 8, 3)), (b"PLTE", bytes(768)), data, end),
        "interlaced": png((b"IHDR", header(20, 20, 8, 2, 1)), data, end),
        "data of 300 MB": png(start, (b"IDAT", bomb), end),
        "text of 300 MB before": png(start, (b"zTXt", text), data, end),
        "text of 300 MB after": png(start, data, (b"zTXt", text), end),
        "profile of 300 MB": png(start, (b"iCCP", text), data, end),
        "two headers": png(start, (b"IHDR", header(30_000, 30_000)), data, end),
        "header between data": png(start, data, (b"IHDR", header(30_000, 30_000)), data, end),
        "animated": png(start, (b"acTL", struct.pack(">II", 2**31, 0)), data, end),
        "no end": png(start, data),
        "no data": png(start, end),
        "data of nothing": png(start, (b"IDAT", b""), end),
        "data in single bytes": png(start, *((b"IDAT", bytes([b])) for b in data[1]), end),
        "too little data": png(start, (b"IDAT", zlib.compress(rows[:500])), end),
        "wrong filter": png(start, (b"IDAT", zlib.compress(b"\x09" * len(rows))), end),
        "length beyond the file": png(start) + struct.pack(">I", 2**31) + b"IDAT" + data[1],
    }
    for kind in ("JPEG", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "EPS"):
        buffer = BytesIO()
        image_of.save(buffer, kind)
        files[f"a {kind} file"] = buffer.getvalue()
    return files


@pytest.mark.parametrize("backend", ["png"], indirect=True)
def test_png_files(faulty: Server, hostile: Hostile, backend: str, tally: Tally) -> None:
    """Bombs, broken files and other formats in place of an image."""
    for name, data in png_files().items():
        hostile.restore()
        if name != "as it should be":  # to the byte: a checksum is of the file
            hostile.first.write_bytes(data)
        hostile.examine(faulty, tally, name)
    tally.check()


# -- encoded images ----------------------------------------------------------------------------


BOMBS = {"png bomb": 9000, "jpeg bomb": 2**14, "webp bomb": 2**14, "jpeg of most pixels": 0xF000}


def make_of_files(path: Path, variant: Variant, backend: str, files: dict[int, Any]) -> None:
    """Make a store with right checksums; some of the sample images are other files and shapes."""

    def sample(index: int) -> tuple[bytes, Any]:
        image = variant.images(1, index)[0]
        encoding = encoding_of(index) if variant.encoding == "mixed" else variant.encoding
        return file_of(image, encoding), image.shape

    given = [files[index] if index in files else sample(index) for index in range(COUNT)]
    headers = iter([Header(variant.encoding, shape, 3) for _, shape in given])
    with pytest.MonkeyPatch.context() as patch, variant.create(path, backend) as store:
        patch.setattr(codecs, "header_of", lambda *_: next(headers))
        store.write_encoded((data for data, _ in given), labels_of(COUNT))


@pytest.mark.parametrize("encoding", ["png", "jpeg", "webp", "mixed"])
@pytest.mark.parametrize("declared", ["by the file", "as written"])
@pytest.mark.parametrize("backend", ["lmdb", "hdf5"], indirect=True)
def test_encoded_files(
    faulty: Server, scratch: Path, backend: str, tally: Tally, encoding: str, declared: str
) -> None:
    """Bombs, broken files and other formats, with right checksums, in place of half the images."""
    variant = Variant(None, {"encoding": encoding})
    wrong = {name: data for name, (data, _) in image_files.refused().items()}
    if encoding != "mixed":
        for other in sorted({"png", "jpeg", "webp"} - {encoding}):
            wrong[other] = image_files.accepted()[other][0]
    files = list((wrong | image_files.damaged()).items())
    places = range(1, COUNT, 2)
    for start in range(0, len(files), len(places)):
        path, put, names = scratch / str(start), {}, {}
        for index, (name, data) in zip(places, files[start:], strict=False):
            side = BOMBS.get(name)
            shape = (side, side, 3) if side else (19, 23, 3)
            if declared == "as written":
                shape = variant.images(1, index)[0].shape
            put[index], names[index] = (data, shape), name
        make_of_files(path, variant, backend, put)
        sound = faulty.run(verify, path)
        assert not sound.text, str(sound)
        found = problems(faulty, path, variant, strict=True)
        tally.add(f"{encoding}, {names}: {found}" if found else None, tried=len(put))
    tally.check(at_least=len(files))


# -- LMDB --------------------------------------------------------------------------------------


Change = Callable[[Any, Any, Any], object]  # of a transaction, the images and the labels


def change_environment(path: Path, change: Change) -> None:
    """Change an environment in one transaction."""
    with lmdb.open(str(path), max_dbs=9) as env:
        images, labels = env.open_db(b"images"), env.open_db(b"labels")
        with env.begin(write=True) as txn:
            change(txn, images, labels)


def set_meta(offset: int, value: bytes) -> Change:
    """Change the record that says what the environment holds."""

    def change(txn: Any, images: Any, labels: Any) -> None:
        meta = bytearray(txn.get(b"storage_impl"))
        meta[offset : offset + len(value)] = value
        txn.put(b"storage_impl", bytes(meta))

    return change


def set_record(edit: Callable[[bytes], bytes]) -> Change:
    """Change the record of image 5."""
    key = struct.pack(">Q", 5)
    return lambda txn, images, labels: txn.put(key, edit(txn.get(key, db=images)), db=images)


def set_labels(edit: Callable[[bytes], bytes]) -> Change:
    """Change the only block of labels."""
    key = bytes(8)
    return lambda txn, images, labels: txn.put(key, edit(txn.get(key, db=labels)), db=labels)


LMDB_CHANGES: dict[str, Change] = {
    "as it should be": lambda txn, images, labels: None,
    "no description": lambda txn, images, labels: txn.delete(b"storage_impl"),
    "short description": lambda txn, images, labels: txn.put(b"storage_impl", b"abc"),
    "long description": lambda txn, images, labels: txn.put(b"storage_impl", bytes(10**6)),
    "another version": set_meta(0, b"\2"),
    "another height": set_meta(4, b"\x28"),
    "one image more": set_meta(16, b"\x29"),
    "countless images": set_meta(16, b"\xff" * 8),
    "many images": set_meta(16, struct.pack("<Q", 2**40)),
    "no images": lambda txn, images, labels: txn.drop(images),
    "no labels": lambda txn, images, labels: txn.drop(labels),
    "images emptied": lambda txn, images, labels: txn.drop(images, delete=False),
    "labels emptied": lambda txn, images, labels: txn.drop(labels, delete=False),
    "image removed": lambda txn, images, labels: txn.delete(struct.pack(">Q", 5), db=images),
    "image without bytes": set_record(lambda record: b""),
    "image with one byte": set_record(lambda record: b"\0"),
    "image cut": set_record(lambda record: record[:-1]),
    "image longer": set_record(lambda record: record + bytes(10**6)),
    "image of another size": set_record(lambda r: r[:4] + struct.pack("<II", 10, 40) + r[12:]),
    "image of an encoding": set_record(lambda record: b"\1" + record[1:]),
    "labels cut": set_labels(lambda block: block[:-8]),
    "labels without bytes": set_labels(lambda block: b""),
    "labels longer": set_labels(lambda block: block + bytes(10**6)),
    "short key": lambda txn, images, labels: txn.put(b"\0", b"x", db=images),
    "long key": lambda txn, images, labels: txn.put(b"\0" * 500, b"x", db=images),
    "keys beyond": lambda txn, images, labels: txn.put(b"\xff" * 8, b"x", db=images),
}


@pytest.mark.parametrize("backend", ["lmdb"], indirect=True)
def test_environments(faulty: Server, hostile: Hostile, backend: str, tally: Tally) -> None:
    """Sound environments that are no store, and such with other databases."""
    for name, change in LMDB_CHANGES.items():
        hostile.restore()
        change_environment(hostile.path, change)
        hostile.examine(faulty, tally, name)
    flags: list[dict[str, Any]] = [
        {"dupsort": True},
        {"dupsort": True, "dupfixed": True},
        {"dupsort": True, "integerdup": True, "dupfixed": True},
        {"integerkey": True},
        {"reverse_key": True},
    ]
    for which in (b"images", b"labels"):
        for kind in flags:
            hostile.restore()
            with lmdb.open(str(hostile.path), max_dbs=9) as env:
                with env.begin(write=True) as txn:
                    old = env.open_db(which, txn=txn)
                    records = list(txn.cursor(db=old))
                    txn.drop(old)
                with env.begin(write=True) as txn:
                    new = env.open_db(which, txn=txn, **kind)
                    for key, value in records:
                        txn.put(key, value[:500], db=new)
            hostile.examine(faulty, tally, f"{which!r} with {kind}")
    tally.check()


# -- HDF5 --------------------------------------------------------------------------------------


def segment(path: Path, outside: Path, which: str, make_it: Callable[..., None]) -> None:
    """Write a segment in which one dataset is made in another way."""
    with h5py.File(outside, "r") as good:
        data = {name: good[name][...] for name in ("images", "labels", "checksums")}
    assert xxhash.xxh3_64_intdigest(data["labels"].tobytes()) == data["checksums"][-1]
    path.unlink()
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for name, values in data.items():
            if name == which:
                make_it(h5py, file, name, values, outside)
            else:
                file.create_dataset(name, data=values)


def stored_outside(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Keep the data in another file."""
    values.tofile(outside.with_suffix(".raw"))
    file.create_dataset(
        name, shape=values.shape, dtype=values.dtype,
        external=[(str(outside.with_suffix(".raw")), 0, values.nbytes)],
    )  # fmt: skip


def linked_outside(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Link to the dataset of another file."""
    file[name] = h5py.ExternalLink(str(outside), name)


def linked_softly(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Link to another name in the file."""
    file.create_dataset("elsewhere", data=values)
    file[name] = h5py.SoftLink("/elsewhere")


def linked_to_itself(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Link to the link."""
    file[name] = h5py.SoftLink(f"/{name}")


def linked_in_a_group(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Hide an external link behind a soft one."""
    file["other"] = h5py.ExternalLink(str(outside), "/")
    file[name] = h5py.SoftLink(f"/other/{name}")


def virtual(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Make a view of another file's dataset."""
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource(str(outside), name, values.shape)
    file.create_virtual_dataset(name, layout)


def unallocated(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Declare a dataset that was never written."""
    file.create_dataset(name, shape=values.shape, dtype=values.dtype)


def huge(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Declare more than any disk holds, of which nothing was written."""
    file.create_dataset(name, shape=(2**40, *values.shape[1:]), dtype=values.dtype)


def huge_in_chunks(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Declare that in chunks."""
    shape, chunks = (2**40, *values.shape[1:]), (64, *values.shape[1:])
    file.create_dataset(name, shape=shape, dtype=values.dtype, chunks=chunks)


def bomb(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Compress a chunk of 300 MB, of which the dataset is a corner."""
    rows = 300 * 2**20 // values[:1].nbytes
    file.create_dataset(
        name, shape=values.shape, maxshape=(None, *values.shape[1:]), dtype=values.dtype,
        chunks=(rows, *values.shape[1:]), compression="gzip", compression_opts=1,
    )[...] = values  # fmt: skip


def filtered(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Ask for a filter that only a plug-in has."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(values.shape)
    plist.set_filter(32_555, h5py.h5z.FLAG_OPTIONAL)
    dataset = h5py.h5d.create(
        file.id, name.encode(), h5py.h5t.py_create(values.dtype),
        h5py.h5s.create_simple(values.shape), plist,
    )  # fmt: skip
    # Marked as if the filter had been applied, so that reading needs it.
    dataset.write_direct_chunk((0,) * values.ndim, values.tobytes(), 0)


def a_group(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Put a group there."""
    file.create_group(name)


def a_type(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Put a named type there."""
    file[name] = np.dtype("u1")


def of_kind(**options: Any) -> Callable[..., None]:
    """Store the right values in another way."""

    def make_it(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
        file.create_dataset(name, data=values, **options)

    return make_it


def of_value(convert: Callable[[Any], Any], **options: Any) -> Callable[..., None]:
    """Store something made of the right values."""

    def make_it(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
        file.create_dataset(name, data=convert(values), **options)

    return make_it


def missing(h5py: Any, file: Any, name: str, values: Any, outside: Path) -> None:
    """Leave it out."""


HDF5_DATASETS: dict[str, Callable[..., None]] = {
    "of another program": of_kind(),  # right, and yet refused with verify=True
    "stored outside": stored_outside,
    "linked outside": linked_outside,
    "linked softly": linked_softly,
    "linked to itself": linked_to_itself,
    "linked in a group": linked_in_a_group,
    "virtual": virtual,
    "unallocated": unallocated,
    "huge": huge,
    "huge in chunks": huge_in_chunks,
    "bomb": bomb,
    "unknown filter": filtered,
    "group": a_group,
    "named type": a_type,
    "missing": missing,
    "chunked": of_kind(chunks=True),
    "growing": of_kind(chunks=True, maxshape=None),
    "lzf": of_kind(chunks=True, compression="lzf"),
    "shuffled": of_kind(chunks=True, shuffle=True, compression="gzip"),
    "checksummed": of_kind(chunks=True, fletcher32=True),
    "scaled": of_kind(chunks=True, scaleoffset=0),
    "big-endian": of_kind(dtype=">i8"),
    "floats": of_kind(dtype="f8"),
    "wider": of_kind(dtype="u8"),
    "text": of_value(lambda values: "text"),
    "texts": of_value(lambda values: ["a", "bc"]),
    "compound": of_value(lambda values: np.zeros(len(values), [("a", "u1"), ("b", "O")])["a"]),
    "scalar": of_value(lambda values: values.flat[0]),
    "flat": of_value(np.ravel),
    "shorter": of_value(lambda values: values[:-1]),
    "longer": of_value(lambda values: np.concatenate([values, values[:1]])),
    "reversed": of_value(lambda values: values[::-1].copy()),
}


@pytest.mark.parametrize("backend", ["hdf5"], indirect=True)
def test_segments(faulty: Server, hostile: Hostile, backend: str, tally: Tally) -> None:
    """Each dataset in turn leads elsewhere, declares too much or is of another kind."""
    for which in ("images", "labels", "checksums"):
        for name, make_it in HDF5_DATASETS.items():
            hostile.restore()
            outside = hostile.outside / FIRST["hdf5"]
            segment(hostile.first, outside, which, make_it)
            hostile.examine(faulty, tally, name)
    tally.check()


PLUGIN = """
#include <fcntl.h>
__attribute__((constructor)) static void run(void) { open("%s", O_CREAT | O_WRONLY, 0600); }
"""


def look_outside_for_plugins(path: Path) -> None:
    """Have HDF5 look for filters outside of the store."""
    h5py.h5pl.prepend(os.fsencode(path.parent / "outside"))


@pytest.mark.parametrize("backend", ["hdf5"], indirect=True)
def test_plugins(faulty: Server, hostile: Hostile, backend: str, tally: Tally) -> None:
    """A filter is not looked for in the libraries that HDF5 would load."""
    hostile.restore()
    source, library = hostile.root / "plugin.c", hostile.outside / "libplugin.so"
    source.write_text(PLUGIN % (hostile.outside / "run"))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    for which in ("images", "labels", "checksums"):
        segment(hostile.first, hostile.outside / FIRST["hdf5"], which, filtered)
        hostile.examine(faulty, tally, f"plug-in for {which}", look_outside_for_plugins)
    tally.check()
