"""The images that the benchmarks store: the same everywhere, like CIFAR-10, and safe to read."""

import builtins
import io
import os
import pickle
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks import datasets
from benchmarks.datasets import __main__

pytestmark = pytest.mark.unmeasured

# Measured on the first 1,000 images of each training batch; PNG as Pillow 13 writes it.
CIFAR10 = {
    "PNG bytes, mean": 2260,
    "PNG bytes, percentile 5": 1737,
    "PNG bytes, percentile 50": 2311,
    "PNG bytes, percentile 95": 2605,
    "mean R": 0.493,
    "mean G": 0.484,
    "mean B": 0.448,
    "deviation R": 0.248,
    "deviation G": 0.245,
    "deviation B": 0.262,
    "correlation RG": 0.91,
    "correlation RB": 0.79,
    "correlation GB": 0.91,
    "horizontal difference": 13.7,
}


def png_size(image: NDArray[np.uint8]) -> int:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.tell()


def statistics(images: NDArray[np.uint8]) -> dict[str, float]:
    """The figures of `CIFAR10` for other images."""
    sizes = [png_size(image) for image in images]
    found = {"PNG bytes, mean": float(np.mean(sizes))}
    for percent in (5, 50, 95):
        found[f"PNG bytes, percentile {percent}"] = float(np.percentile(sizes, percent))
    channels = images.reshape(-1, 3).T / 255
    correlation = np.corrcoef(channels)
    for name, channel in zip("RGB", channels, strict=True):
        found[f"mean {name}"] = channel.mean()
        found[f"deviation {name}"] = channel.std()
    for first, second in ((0, 1), (0, 2), (1, 2)):
        found[f"correlation {'RGB'[first]}{'RGB'[second]}"] = correlation[first, second]
    found["horizontal difference"] = detail(images)
    return found


def detail(images: NDArray[np.uint8]) -> float:
    """The mean absolute difference of pixels side by side."""
    return float(np.abs(np.diff(images.astype(np.int16), axis=2)).mean())


def checksum(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    return f"{zlib.crc32(labels.astype('<i8').tobytes(), zlib.crc32(images.tobytes())):08x}"


# --- Synthetic images ---


@pytest.mark.parametrize(
    ("count", "size", "seed", "expected"),
    [
        pytest.param(1000, 32, 0, "59beebd3", id="32 px"),
        pytest.param(1000, 32, 1, "58db6029", id="another seed"),
        pytest.param(300, 26, 0, "62ff14ce", id="26 px"),
        pytest.param(3, 500, 0, "2a4b489f", id="500 px"),
    ],
)
def test_checksum(count: int, size: int, seed: int, expected: str) -> None:
    """The images of a seed are these, bit for bit: figures of years ago are still comparable.

    Should this fail, all results change their meaning: raise the benchmarks' versions.
    """
    assert checksum(*datasets.synthetic.make(count, size, seed=seed)) == expected


@pytest.fixture(scope="module")
def synthetic_statistics() -> dict[str, float]:
    return statistics(datasets.synthetic.make(3000)[0])


@pytest.mark.parametrize("name", CIFAR10)
def test_synthetic_images_are_like_cifar10(
    name: str, synthetic_statistics: dict[str, float]
) -> None:
    """They take the space of photographs and look as smooth and as colourful."""
    if name == "PNG bytes, mean":
        expected = pytest.approx(CIFAR10[name], rel=0.05)
    elif name.startswith(("PNG", "horizontal")):
        expected = pytest.approx(CIFAR10[name], rel=0.1)
    else:
        expected = pytest.approx(CIFAR10[name], abs=0.03)
    assert synthetic_statistics[name] == expected


@pytest.mark.parametrize(("size", "most"), [(8, 300), (32, 300), (300, 25)])
def test_image_does_not_depend_on_the_count(size: int, most: int) -> None:
    """Image i is the same whether ten are asked for or ten thousand."""
    images, labels = datasets.synthetic.make(most, size)
    for count in (0, 1, 11, 12, most // 2, most - 1):
        fewer, fewer_labels = datasets.synthetic.make(count, size)
        np.testing.assert_array_equal(fewer, images[:count])
        np.testing.assert_array_equal(fewer_labels, labels[:count])


def test_synthetic_images_differ() -> None:
    """No two are alike, which a store could profit from, and no seed gives those of another."""
    images = np.concatenate([datasets.synthetic.make(500, seed=seed)[0] for seed in (0, 1)])
    assert len({image.tobytes() for image in images}) == 1000


@pytest.mark.parametrize("size", [1, 2, 3, 8, 24, 33, 512])
def test_synthetic_shape_and_type(size: int) -> None:
    """Any size can be had."""
    images, labels = datasets.synthetic.make(2, size)
    assert (images.shape, images.dtype) == ((2, size, size, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((2,), np.int64)


def test_larger_synthetic_images_are_smoother() -> None:
    """Each doubling takes away detail, and so PNG bytes a pixel, but never all of it."""
    images = [datasets.synthetic.make(12, size)[0] for size in (8, 16, 32, 64, 128, 256, 512)]
    details = [detail(sized) for sized in images]
    assert details == sorted(details, reverse=True)
    encoded = [np.mean([png_size(image) for image in sized]) for sized in images]
    bytes_a_value = [size / sized[0].size for size, sized in zip(encoded, images, strict=True)]
    assert bytes_a_value == sorted(bytes_a_value, reverse=True)
    assert bytes_a_value[-1] > 0.3


def test_synthetic_labels_are_even() -> None:
    """The labels are 0 to 9, about as many of each."""
    counts = np.bincount(datasets.synthetic.make(5000, 8)[1], minlength=10)
    assert len(counts) == 10
    assert counts.min() > 400
    assert counts.max() < 600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1}, "count .*0 or more.*-1"),
        ({"count": 1, "size": 0}, "size .*1 pixel or more.*0"),
        ({"count": 1, "seed": -1}, "seed .*0 or more.*-1"),
    ],
)
def test_synthetic_refuses(arguments: dict[str, int], message: str) -> None:
    """What is out of range is named."""
    with pytest.raises(ValueError, match=message):
        datasets.synthetic.make(**arguments)


# --- What STORAGE_IMPL_DATASET chooses ---


Choose = Callable[[object], None]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Choose:
    return lambda value: monkeypatch.setenv(datasets.VARIABLE, str(value))


def test_synthetic_is_the_default(choose: Choose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset and empty mean the same."""
    expected = checksum(*datasets.synthetic.make(10, 16))
    choose("")
    assert checksum(*datasets.load(10, 16)) == expected
    monkeypatch.delenv(datasets.VARIABLE)
    assert checksum(*datasets.load(10, 16)) == expected
    assert datasets.survey() == ("synthetic images with the statistics of CIFAR-10", True)


@pytest.mark.parametrize("call", [datasets.survey, lambda: datasets.load(1)])
def test_paths_that_are_refused(call: Callable[[], object], choose: Choose, tmp_path: Path) -> None:
    """A path that cannot be a dataset is named, along with what can be one."""
    accepted = "data_batch_1.*images.*subfolders.*labels.*synthetic"
    choose(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=rf"missing.*does not exist.*{accepted}"):
        call()
    (tmp_path / "cifar-10-python.tar.gz").touch()
    choose(tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(NotADirectoryError, match=rf"tar\.gz.*unpacked.*{accepted}"):
        call()
    choose("photos")
    with pytest.raises(ValueError, match=f"'photos', a relative path.*absolute.*{accepted}"):
        call()
    (tmp_path / "notes.txt").touch()
    choose(tmp_path)
    with pytest.raises(ValueError, match=f"no image.*{accepted}"):
        call()


@pytest.mark.parametrize(("count", "size"), [(-1, 32), (1, 0)])
def test_load_refuses(count: int, size: int, choose: Choose, tmp_path: Path) -> None:
    """Counts and sizes are checked for every dataset alike."""
    write_batch(tmp_path / "data_batch_1", [1])
    choose(tmp_path)
    with pytest.raises(ValueError, match="or more"):
        datasets.load(count, size)


# --- CIFAR-10 ---


def string(text: bytes) -> bytes:
    """SHORT_BINSTRING: what Python 2 wrote for a short str."""
    return b"U" + bytes([len(text)]) + text


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\nq\x07"
NDARRAY = b"cnumpy\nndarray\nq\x08"
EMPTY_ARRAY = NDARRAY + b"K\x00\x85" + string(b"b") + b"\x87"
DTYPE = b"cnumpy\ndtype\nq\x0a"
UINT8 = string(b"u1") + b"K\x00K\x01\x87"
UINT8_STATE = b"(K\x03" + string(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00t"


def pickled_batch(
    labels: list[int],
    pixels: bytes,
    *,
    make: bytes = RECONSTRUCT + EMPTY_ARRAY + b"Rq\x09",
    rows: bytes | None = None,
    columns: bytes = b"M\x00\x0c",
    dtype: bytes = DTYPE + UINT8 + b"Rq\x0b" + UINT8_STATE + b"b",
    order: bytes = b"\x89",
    pixels_name: bytes = b"data",
    pixels_pickled: bytes | None = None,
    labels_name: bytes = b"labels",
    more: bytes = b"",
) -> bytes:
    """A batch with the opcodes of the published files; the keywords replace a part of them."""
    if rows is None:
        rows = b"M" + struct.pack("<H", len(labels))
    if pixels_pickled is None:
        pixels_pickled = b"T" + struct.pack("<i", len(pixels)) + pixels
    return b"".join(
        [
            b"\x80\x02}q\x01(",
            string(b"batch_label") + b"q\x02" + string(b"training batch 1 of 5") + b"q\x03",
            string(labels_name) + b"q\x04]q\x05(",
            *(b"K" + bytes([label]) for label in labels),
            b"e" + string(pixels_name) + b"q\x06" + make,
            b"(K\x01" + rows + columns + b"\x86" + dtype + order + pixels_pickled + b"tb",
            string(b"filenames") + b"q\x0c]r\x0d\x00\x00\x00(",
            *(
                string(b"photo_%d.png" % i) + b"r" + struct.pack("<I", 14 + i)
                for i in range(len(labels))
            ),
            b"e" + more + b"u.",
        ]
    )


def pixels_of(labels: list[int]) -> bytes:
    """Images in CIFAR-10's order, planes of R, G and B: 100, 50 and 10 times the label."""
    planes = [factor * label % 256 for label in labels for factor in (100, 50, 10)]
    return b"".join(bytes([value]) * 1024 for value in planes)


def write_batch(path: Path, labels: list[int], **changed: Any) -> None:
    path.write_bytes(pickled_batch(labels, pixels_of(labels), **changed))


def test_cifar10_is_read(tmp_path: Path) -> None:
    """Pixels and labels of the published format come out as they were, batch after batch."""
    write_batch(tmp_path / "data_batch_10", [9])
    write_batch(tmp_path / "data_batch_2", [3, 4] * 200)
    write_batch(tmp_path / "data_batch_1", [0, 1, 2])
    (tmp_path / "data_batch_3.bak").write_text("no batch")
    (tmp_path / "test_batch").write_text("not of the training images")
    images, labels = datasets.cifar10.read(tmp_path)
    assert labels.tolist() == [0, 1, 2, *[3, 4] * 200, 9]
    assert labels.dtype == np.int64
    assert (images.shape, images.dtype) == ((404, 32, 32, 3), np.uint8)
    assert images.flags.c_contiguous
    colours = labels[:, np.newaxis] * (100, 50, 10) % 256
    np.testing.assert_array_equal(images, np.broadcast_to(colours[:, None, None], images.shape))


def test_cifar10_planes_are_rows_of_rgb(tmp_path: Path) -> None:
    """Each image is stored as 1024 red, 1024 green and 1024 blue values, row by row."""
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    planes = b"".join(image[..., channel].tobytes() for channel in range(3))
    (tmp_path / "data_batch_1").write_bytes(pickled_batch([5], planes))
    np.testing.assert_array_equal(datasets.cifar10.read(tmp_path)[0], image[np.newaxis])


def test_cifar10_limit_spares_the_rest(tmp_path: Path) -> None:
    """Batches that are not needed are not read."""
    write_batch(tmp_path / "data_batch_1", [1, 2, 3])
    (tmp_path / "data_batch_2").write_text("damaged")
    images, labels = datasets.cifar10.read(tmp_path, limit=2)
    assert labels.tolist() == [1, 2]
    assert len(images) == 2
    assert len(datasets.cifar10.read(tmp_path, limit=0)[0]) == 0
    with pytest.raises(ValueError, match="data_batch_2"):
        datasets.cifar10.read(tmp_path, limit=4)


@pytest.mark.parametrize("above", [False, True], ids=["its directory", "the one above"])
def test_load_cifar10(above: bool, choose: Choose, tmp_path: Path) -> None:
    """It is recognised, resized, and repeated where more images are asked for than there are."""
    directory = tmp_path / "cifar-10-batches-py"
    directory.mkdir()
    write_batch(directory / "data_batch_1", [1, 2])
    write_batch(directory / "data_batch_2", [0])
    choose(tmp_path if above else directory)
    images, labels = datasets.load(7)
    assert labels.tolist() == [1, 2, 0, 1, 2, 0, 1]
    np.testing.assert_array_equal(images[3:6], images[:3])
    assert images[1, 0, 0].tolist() == [200, 100, 20]
    assert datasets.load(2)[1].tolist() == [1, 2]
    for size in (16, 50):
        resized, _ = datasets.load(7, size)
        np.testing.assert_array_equal(resized, np.broadcast_to(images[:, :1, :1], resized.shape))
    for size in (16, 32):
        assert datasets.load(0, size)[0].shape == (0, size, size, 3)
    name = tmp_path.name if above else directory.name
    assert datasets.survey() == (f"CIFAR-10, 2 batches in {name}, 3 images read", True)


def test_cifar10_without_batches(tmp_path: Path) -> None:
    """A directory without batches is named."""
    with pytest.raises(FileNotFoundError, match=f"{tmp_path.name}.*data_batch_1"):
        datasets.cifar10.read(tmp_path)


def refused(path: Path, data: bytes, message: str) -> None:
    """Check that `data` is refused as a batch, and without taking memory."""
    (path / "data_batch_1").write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            datasets.cifar10.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert f"{path / 'data_batch_1'} is not a CIFAR-10 python batch" in str(caught.value)
    assert "Use the files" in str(caught.value)
    assert peak < 1_000_000 + 8 * len(data)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"columns": b"M\x00\x08"}, "shape"),
        ({"rows": b"K\x01"}, "shape"),
        ({"rows": b"J\xff\xff\xff\xff"}, "shape"),
        ({"order": b"K\x01"}, "shape"),
        ({"rows": b"K\x00", "pixels_pickled": string(b"")}, "shape"),
        ({"pixels_pickled": b"N"}, "shape"),
        ({"dtype": DTYPE + string(b"i1") + b"K\x00K\x01\x87R" + UINT8_STATE + b"b"}, "uint8"),
        ({"dtype": DTYPE + UINT8 + b"R(K\x03" + string(b">") + b"NNNNNNtb"}, "uint8"),
        ({"dtype": string(b"u1")}, "uint8"),
        ({"pixels_name": b"pixels"}, "no pixels under 'data'"),
        ({"labels_name": b"fine_labels"}, "no list of one label per image under 'labels'"),
        ({"more": string(b"labels") + string(b"12")}, "no list of one label"),
        ({"more": string(b"labels") + b"](K\x01e"}, "no list of one label"),
        ({"more": string(b"labels") + b"](K\x01K\x0ae"}, "labels that are not integers 0 to 9"),
        ({"more": string(b"labels") + b"](K\x01Ne"}, "labels that are not integers 0 to 9"),
    ],
)
def test_batches_of_another_kind(changed: dict[str, bytes], message: str, tmp_path: Path) -> None:
    """What is not (n, 3072) bytes and n labels is refused with what is wrong about it."""
    refused(tmp_path, pickled_batch([1, 2], pixels_of([1, 2]), **changed), message)


def test_files_that_are_no_pickle(tmp_path: Path) -> None:
    """Empty files, cut ones and text, such as an error page saved in place of the download."""
    whole = pickled_batch([1, 2], pixels_of([1, 2]))
    for data in (b"", b"<!DOCTYPE html>\n", *(whole[:end] for end in range(1, len(whole), 97))):
        refused(tmp_path, data, "not a CIFAR-10 python batch")


class Call:
    """Pickled, it is a call that the unpickler is to make."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "function",
    [os.system, builtins.eval, builtins.exec, builtins.getattr, builtins.__import__, open],
    ids=lambda function: str(function.__name__),
)
def test_no_call_of_a_pickle_is_made(
    function: Callable[..., Any], protocol: int, tmp_path: Path
) -> None:
    """A pickle that asks for a function that does harm is refused, whatever its protocol."""
    arguments = {
        os.system: [f"touch {tmp_path}/harm"],
        builtins.eval: [f"open({str(tmp_path / 'harm')!r}, 'w')"],
        builtins.exec: [f"open({str(tmp_path / 'harm')!r}, 'w')"],
        builtins.getattr: [Call(builtins.__import__, "os"), "system"],
        builtins.__import__: ["os"],
        open: [str(tmp_path / "harm"), "w"],
    }[function]
    refused(tmp_path, pickle.dumps(Call(function, *arguments), protocol), "not part of the format")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("numpy", "ndarray.__class__"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),
        ("copy_reg", "_reconstructor"),
    ],
)
def test_no_other_global_is_admitted(module: str, name: str, tmp_path: Path) -> None:
    """In a batch that is otherwise as published, one global more is enough to refuse it."""
    more = string(b"x") + f"c{module}\n{name}\n".encode()
    data = pickled_batch([1], pixels_of([1]), more=more)
    refused(tmp_path, data, rf"asks for {module}\.{name}, which is not part of the format")


BIG = b"J\xff\xff\xff\x7f"  # 2**31 - 1

HOSTILE = {
    "array of 2 GB": (
        {"make": RECONSTRUCT + NDARRAY + BIG + b"\x85" + string(b"b") + b"\x87R"},
        "another way",
    ),
    "array of 4 EB": (
        {"make": RECONSTRUCT + NDARRAY + BIG + BIG + b"\x86" + string(b"b") + b"\x87R"},
        "another way",
    ),
    "array made by ndarray": ({"make": NDARRAY + BIG + b"\x85\x85R"}, "not callable"),
    "array of another class": (
        {"make": RECONSTRUCT + DTYPE + b"K\x00\x85" + string(b"b") + b"\x87R"},
        "another way",
    ),
    "array of no arguments": ({"make": RECONSTRUCT + b"(tR"}, "another way"),
    "state of 2 GB": ({"rows": BIG}, "shape"),
    "state of 4 EB": ({"rows": BIG, "columns": BIG}, "shape"),
    "rows of text": ({"rows": b"T" + struct.pack("<i", 100_000) + b"x" * 100_000}, "shape"),
    "objects": (
        {
            "dtype": DTYPE + string(b"O8") + b"K\x00K\x01\x87R" + UINT8_STATE + b"b",
            "pixels_pickled": b"](NNe",
        },
        "not uint8",
    ),
    "dtype with fields": (
        {"dtype": DTYPE + UINT8 + b"R(K\x03" + string(b"|") + b"N" + string(b"x") + b"}NNNtb"},
        "not plain uint8",
    ),
    "dtype that is wide": (
        {"dtype": DTYPE + string(b"V2147483647") + b"K\x00K\x01\x87R" + UINT8_STATE + b"b"},
        "not uint8",
    ),
    "state for a global": ({"make": NDARRAY + b"}" + string(b"x") + b"K\x01sb"}, "__dict__"),
    "attribute for a global": (
        {"make": RECONSTRUCT + b"N}" + string(b"x") + b"K\x01s\x86b" + EMPTY_ARRAY + b"R"},
        "attribute",
    ),
    "memo of 32 GB": ({"more": string(b"x") + b"Nr\xff\xff\xff\x7f"}, "memo number 2147483647"),
    "tuples too deep to hash": ({"more": b"K\x01" + b"\x85" * 200_000 + b"N"}, "TUPLE1 at"),
    "tuples too many to hash": ({"more": b"K\x01" + b"q\x20h\x20\x86" * 40 + b"N"}, "TUPLE2 at"),
    "object": ({"more": string(b"x") + NDARRAY + b"(t\x81"}, "NEWOBJ at"),
    "instance": ({"more": string(b"x") + b"(ios\nsystem\n"}, "INST at"),
    "extension": ({"more": string(b"x") + b"\x82\x01"}, "EXT1 at"),
    "persistent": ({"more": string(b"x") + b"P1\n"}, "PERSID at"),
    "bytearray of 16 GB": (
        {"more": string(b"x") + b"\x96" + struct.pack("<Q", 2**34)},
        "17179869184",
    ),
    "string of 2 GB": ({"more": string(b"x") + b"T\xff\xff\xff\x7f"}, "2147483647"),
    "long of 2 GB": ({"more": string(b"x") + b"\x8b\xff\xff\xff\x7f"}, "long4"),
}


@pytest.mark.parametrize(("changed", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_batches(changed: dict[str, bytes], message: str, tmp_path: Path) -> None:
    """What is admitted cannot be turned against the reader: its memory, stack, time or parts."""
    refused(tmp_path, pickled_batch([1, 2], pixels_of([1, 2]), **changed), message)
    write_batch(tmp_path / "data_batch_1", [1, 2])
    assert datasets.cifar10.read(tmp_path)[1].tolist() == [1, 2]


# --- A folder of images ---


def picture(colour: tuple[int, int, int], width: int = 8, height: int = 8) -> Any:
    return Image.new("RGB", (width, height), colour)


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.mark.parametrize(
    "extension", ["png", "PNG", "jpg", "jpeg", "gif", "bmp", "tif", "ppm", "webp", "tga", "ico"]
)
def test_formats(extension: str, tmp_path: Path) -> None:
    """Whatever Pillow reads is read."""
    picture((40, 80, 120), 16, 16).save(tmp_path / f"a.{extension}")
    images, labels = datasets.folder.read(tmp_path, 4)
    assert (images.shape, images.dtype) == ((1, 4, 4, 3), np.uint8)
    assert labels.tolist() == [0]
    np.testing.assert_allclose(images.astype(int) - (40, 80, 120), 0, atol=8)


def sixteen_bits() -> Any:
    return Image.fromarray(np.full((8, 8), 51_234, np.uint16))


def see_through_palette() -> Any:
    image = picture((10, 20, 30)).quantize(2)
    image.info["transparency"] = bytes([100, 200])
    return image


MODES = {
    "black and white": (lambda: picture((255,) * 3).convert("1"), "png", (255,) * 3),
    "grey": (lambda: Image.new("L", (8, 8), 77), "png", (77,) * 3),
    "grey, 16 bits, PNG": (sixteen_bits, "png", (51_234 >> 8,) * 3),
    "grey, 16 bits, TIFF": (sixteen_bits, "tif", (51_234 >> 8,) * 3),
    "grey, 32 bits": (lambda: Image.new("I", (8, 8), 51_234), "tif", (51_234 >> 8,) * 3),
    "grey with alpha": (lambda: Image.new("LA", (8, 8), (77, 9)), "png", (77,) * 3),
    "palette": (lambda: picture((10, 20, 30)).quantize(2), "png", (10, 20, 30)),
    "palette, see-through": (see_through_palette, "png", (10, 20, 30)),
    "alpha": (lambda: Image.new("RGBA", (8, 8), (10, 20, 30, 0)), "png", (10, 20, 30)),
    "CMYK": (lambda: Image.new("CMYK", (8, 8), (255, 0, 255, 0)), "tif", (0, 255, 0)),
}


@pytest.mark.parametrize(("make", "extension", "colour"), MODES.values(), ids=MODES)
def test_modes(
    make: Callable[[], Any], extension: str, colour: tuple[int, int, int], tmp_path: Path
) -> None:
    """Grey, palettes, transparency and 16 bits become the 8-bit RGB that one would see."""
    make().save(tmp_path / f"a.{extension}")
    images, _ = datasets.folder.read(tmp_path, 8)
    np.testing.assert_array_equal(images, np.broadcast_to(np.array(colour), images.shape))


def test_animation(tmp_path: Path) -> None:
    """Its first picture counts."""
    picture(RED).save(tmp_path / "a.gif", save_all=True, append_images=[picture(BLUE)])
    assert datasets.folder.read(tmp_path, 8)[0][0, 4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("side", [30, 600])
@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_crop(extension: str, side: int, tmp_path: Path) -> None:
    """Of an oblong image the square about its centre is kept, upright or lying."""
    wide = picture(RED, 3 * side, side)
    wide.paste(GREEN, (side, 0, 2 * side, side))
    wide.paste(BLUE, (2 * side, 0, 3 * side, side))
    wide.save(tmp_path / f"wide.{extension}", quality=95)
    wide.transpose(Image.Transpose.ROTATE_90).save(tmp_path / f"high.{extension}", quality=95)
    images, _ = datasets.folder.read(tmp_path, 16)
    inner = images[:, 3:13, 3:13]
    np.testing.assert_allclose(inner.astype(int) - GREEN, 0, atol=8)
    assert images.std() > 100  # not one grey average of all three


def test_subfolders_are_labels(choose: Choose, tmp_path: Path) -> None:
    """Labels follow the names of the subfolders with images; what else lies about is ignored."""
    for place, colour in (
        ("cat/1.png", RED),
        ("cat/2.jpg", RED),
        ("apple/deep/below/3.png", GREEN),
        ("zebra/4.png", BLUE),
        ("zebra/.hidden.png", RED),
        ("zebra/.cache/5.png", RED),
        (".trash/6.png", RED),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        picture(colour).save(tmp_path / place)
    (tmp_path / "bare").mkdir()
    (tmp_path / "notes").mkdir()
    for name in ("README.txt", "notes/a.txt", "cat/labels.csv", "cat/data.h5", "cat/a.eps"):
        (tmp_path / name).write_text("no image")
    images, labels = datasets.folder.read(tmp_path, 4)
    by_label = {0: "green", 1: "red", 2: "blue"}
    named = {0: "red", 1: "green", 2: "blue"}
    found = [named[int(image.mean(axis=(0, 1)).argmax())] for image in images]
    assert found == [by_label[label] for label in labels.tolist()]
    assert sorted(labels.tolist()) == [0, 1, 1, 2]
    choose(tmp_path)
    text = f"4 images with 3 labels in {tmp_path.name}\n3 PNG, 1 JPEG; 8 x 8 pixels"
    assert datasets.survey() == (text, True)


def test_images_without_subfolders(choose: Choose, tmp_path: Path) -> None:
    """All have label 0; folders without images do not count."""
    (tmp_path / "empty").mkdir()
    for i in range(3):
        picture((i, i, i)).save(tmp_path / f"{i}.png")
    choose(tmp_path)
    images, labels = datasets.load(8, 4)
    assert labels.tolist() == [0] * 8
    assert sorted(images[:3, 0, 0, 0].tolist()) == [0, 1, 2]
    np.testing.assert_array_equal(images[3:6], images[:3])
    np.testing.assert_array_equal(images[6:], images[:2])
    for count in range(4):
        np.testing.assert_array_equal(datasets.load(count, 4)[0], images[:count])
    text = f"3 images with 1 label in {tmp_path.name}\n3 PNG; 8 x 8 pixels"
    assert datasets.survey() == (text, True)


def test_first_images_are_of_all_labels(choose: Choose, tmp_path: Path) -> None:
    """The first few are a sample of the folder, and not all from its first subfolder."""
    for label in range(3):
        (tmp_path / f"class-{label}").mkdir()
        for i in range(40):
            picture(RED, 2, 2).save(tmp_path / f"class-{label}" / f"{i}.png")
    choose(tmp_path)
    assert set(datasets.load(15, 2)[1].tolist()) == {0, 1, 2}


def test_images_beside_subfolders(tmp_path: Path) -> None:
    """Where it is not plain which label an image has, that is said."""
    (tmp_path / "cat").mkdir()
    picture(RED).save(tmp_path / "cat" / "1.png")
    picture(RED).save(tmp_path / "stray.png")
    with pytest.raises(ValueError, match=r"stray\.png.*beside subfolders with images; accepted"):
        datasets.folder.read(tmp_path)


def cut(path: Path) -> None:
    picture(RED, 50, 50).save(path)
    path.write_bytes(path.read_bytes()[:60])


def postscript(path: Path) -> None:
    picture(RED).save(path, "EPS")


def floats(path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(path, "TIFF")


def deep(path: Path) -> None:
    Image.new("I", (8, 8), 70_000).save(path, "TIFF")


def fifo(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this platform has no FIFO")
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(cut, "", id="cut"),
        pytest.param(lambda path: path.write_bytes(b""), "cannot identify", id="empty"),
        pytest.param(lambda path: path.write_text("x"), "cannot identify", id="text"),
        pytest.param(postscript, "cannot identify", id="PostScript, which is a program"),
        pytest.param(floats, "floating-point", id="floats"),
        pytest.param(deep, "more than 16 bits", id="more than 16 bits"),
        pytest.param(fifo, "not a regular file", id="FIFO"),
        pytest.param(lambda path: path.symlink_to("gone"), "not a regular file", id="no target"),
    ],
)
def test_unreadable_image(make: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    """An image that cannot be read is named, and why."""
    make(tmp_path / "broken.png")
    with pytest.raises(ValueError, match=rf"broken\.png cannot be read as an image: .*{reason}"):
        datasets.folder.read(tmp_path)


def a_folder_with_bad_images(tmp_path: Path) -> Path:
    """Return a folder of 30 images, of which two cannot be read."""
    for i in range(28):
        picture((i, i, i), 8 + i, 4).save(tmp_path / f"{i:02}.png")
    cut(tmp_path / "torn.png")
    (tmp_path / "text.jpg").write_text("x")
    return tmp_path


def test_bad_images_are_named(
    choose: Choose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is measured it is said which images cannot be read, why, and what to do."""
    choose(a_folder_with_bad_images(tmp_path))
    monkeypatch.delenv("STORAGE_IMPL_SKIP_BAD", raising=False)
    text, usable = datasets.survey()
    assert not usable
    first, formats, bad, *names = text.splitlines()
    assert first == f"30 images with 1 label in {tmp_path.name}"
    assert formats == "29 PNG; 8 x 4 to 50 x 50 pixels"
    assert bad.startswith(
        "2 images cannot be read: remove or repair them, or set STORAGE_IMPL_SKIP_"
    )
    assert [name.split(":")[0].strip() for name in sorted(names)] == ["text.jpg", "torn.png"]
    with pytest.raises(ValueError, match=r"(torn|text)\.\w+ cannot be read as an image"):
        datasets.load(30, 4)


def test_bad_images_are_left_out_where_asked(
    choose: Choose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are used, each the same however many are read."""
    choose(a_folder_with_bad_images(tmp_path))
    monkeypatch.setenv("STORAGE_IMPL_SKIP_BAD", "1")
    text, usable = datasets.survey()
    assert usable
    assert "2 images cannot be read: left out" in text
    images, _ = datasets.load(28, 4)
    assert sorted(images[:, 0, 0, 0].tolist()) == list(range(28))
    np.testing.assert_array_equal(datasets.load(29, 4)[0][28], images[0])
    for count in (0, 1, 13):
        np.testing.assert_array_equal(datasets.load(count, 4)[0], images[:count])


def test_nothing_but_bad_images(
    choose: Choose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none is left there is nothing to measure on, and that is said."""
    cut(tmp_path / "torn.png")
    choose(tmp_path)
    monkeypatch.setenv("STORAGE_IMPL_SKIP_BAD", "1")
    assert not datasets.survey().usable
    with pytest.raises(ValueError, match="none of the 1 images in .* can be read"):
        datasets.load(1)


def test_many_images_are_looked_at_in_part(choose: Choose, tmp_path: Path) -> None:
    """No more are read than the benchmarks use, and a long list is cut."""
    for i in range(40):
        cut(tmp_path / f"{i:02}.png")
    choose(tmp_path)
    lines = datasets.survey(limit=25).text.splitlines()
    assert lines[1] == "25 of them were checked: the benchmarks use no more"
    assert lines[3].startswith("25 images cannot be read")
    assert lines[-1] == "  and 5 more"


@pytest.mark.parametrize("kind", ["good", "bad", "empty"])
def test_survey_in_a_terminal(
    kind: str, choose: Choose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints what there is, or one sentence, and fails where nothing can be measured."""
    if kind == "good":
        picture(RED).save(tmp_path / "a.png")
    elif kind == "bad":
        cut(tmp_path / "a.png")
    choose(tmp_path)
    assert __main__.main([]) == (0 if kind == "good" else 1)
    printed = capsys.readouterr()
    if kind == "empty":
        assert "holds no image in a format" in printed.err
        assert len(printed.err.splitlines()) == 1
    else:
        assert printed.out.startswith("1 image with 1 label")
        assert ("a.png: " in printed.out) == (kind == "bad")


# --- CIFAR-10 itself ---


@pytest.fixture(scope="module")
def sample() -> Path:
    directory = os.environ.get("STORAGE_IMPL_CIFAR10")
    if not directory:
        pytest.skip("STORAGE_IMPL_CIFAR10 does not name a directory with CIFAR-10")
    return Path(directory)


def test_real_cifar10_is_as_published(sample: Path) -> None:
    """The figures that the synthetic images are held to are those of the real ones."""
    images, labels = datasets.cifar10.read(sample, limit=5000)
    assert len(images) == len(labels) == 5000
    assert np.bincount(labels).min() > 400
    assert statistics(images) == pytest.approx(CIFAR10, rel=0.01)


def test_load_real_cifar10(sample: Path, choose: Choose) -> None:
    """More images than there are repeat those that there are."""
    images, labels = datasets.cifar10.read(sample)
    choose(sample)
    number = len(images)
    repeated, repeated_labels = datasets.load(number + 300)
    np.testing.assert_array_equal(repeated[:number], images)
    np.testing.assert_array_equal(repeated[number:], images[:300])
    np.testing.assert_array_equal(repeated_labels, np.append(labels, labels[:300]))
    assert datasets.load(20, 48)[0].shape == (20, 48, 48, 3)
