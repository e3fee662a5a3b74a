"""Benchmarks of encodings: that each handles all images of its size, as that encoding."""

import io
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

import storage_impl
from benchmarks import datasets, encoding, page_cache
from tests import image_files, test_benchmarks
from tests.test_benchmarks import benchmark_of, run
from tests.test_benchmarks_writing import needs_cold

pytestmark = pytest.mark.unmeasured

few_images = test_benchmarks.few_images

# Each encoding in each size, the backends taking turns; the png backend has one encoding.
CASES = [
    *(("png", "png", size) for size in encoding.SIZES),
    *(
        (("lmdb", "hdf5")[turn % 2], *case)
        for turn, case in enumerate(product(encoding.ENCODINGS, encoding.SIZES))
    ),
]

made = cache(datasets.synthetic.photos)


@pytest.fixture
def little(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory, with 2 images of 256 pixels a side and 3 that differ."""
    monkeypatch.setattr(encoding, "PIXEL_BYTES", 2 * 256 * 256 * 3)
    monkeypatch.setattr(encoding, "GRID", ((1, 2), (2, 1), (1, 1)))
    monkeypatch.setattr(datasets.synthetic, "photos", lambda sizes: made(tuple(sizes)))
    return few_images


def test_all_sizes_have_the_same_bytes() -> None:
    """6 MiB of pixels are that many images of 32 or 256 pixels a side, and those of the grid."""
    for side in (32, 256):
        assert encoding.PIXEL_BYTES % (side * side * 3) == 0
    differing = sum(64 * height * 64 * width * 3 for height, width in encoding.GRID)
    assert differing == encoding.PIXEL_BYTES
    assert len(encoding.GRID) == 22
    assert {64 * side for size in encoding.GRID for side in size} == set(range(64, 513, 64))


@pytest.mark.parametrize("case", CASES)
def test_runs(case: tuple[Any, ...], little: Path) -> None:
    """Stores of each backend, encoding and size are written, read and weighed."""
    for name in ("EncodedWrite.time_write_6mib", "EncodedRead.time_shuffled_6mib"):
        assert run(benchmark_of(f"encoding.{name}", case))["samples"][0] > 0
    ratio = run(benchmark_of("encoding.EncodedUsage.track_ratio", case))
    (path,) = (path for path in little.iterdir() if path.name.startswith(case[0]))
    with storage_impl.open_store(path) as store:
        assert store.encoding == case[1]
        assert (store.image_shape is None) == (case[2] == "64 to 512")
        pixels = sum(image.nbytes for image in store.read_many()[0])
        assert ratio == store.disk_usage().allocated / pixels


def test_png_files_are_png_files(little: Path) -> None:
    """The png backend takes no other encoding: n/a."""
    assert benchmark_of("encoding.EncodedRead.time_read_20", ("png", "jpeg", 256)).do_setup()


@pytest.mark.parametrize("case", list(product(encoding.ENCODINGS, encoding.SIZES)))
def test_pillow_alone(case: tuple[Any, ...], little: Path) -> None:
    """The floor, and a folder of files, handle all images."""
    for name in ("PillowAlone.time_encode_6mib", "PillowAlone.time_decode_6mib"):
        run(benchmark_of(f"encoding.{name}", case))
    if case[0] != "raw":
        for name in ("time_read_6mib", "time_read_20", "time_write_6mib", "track_ratio"):
            run(benchmark_of(f"encoding.Folder.{name}", case))


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("EncodedRead.time_read_6mib", ("lmdb", "png", 256)),
        ("EncodedRead.time_read_20", ("hdf5", "jpeg", "64 to 512")),
        ("EncodedWrite.time_write_6mib", ("hdf5", "raw", "64 to 512")),
        ("EncodedWrite.time_write_6mib", ("lmdb", "jpeg", 32)),
    ],
)
def test_wrong_pixels_have_no_figure(
    name: str, case: tuple[Any, ...], little: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not what was written fails before anything is timed."""
    benchmark = benchmark_of(f"encoding.{name}", case)
    read_many = storage_impl.ImageStore.read_many

    def wrong(store: Any) -> Any:
        images, labels = read_many(store)
        return [255 - image for image in images], labels

    monkeypatch.setattr(storage_impl.ImageStore, "read_many", wrong)
    with pytest.raises(RuntimeError, match="differs from what was written"):
        benchmark.do_setup()
    benchmark.do_teardown()


def test_cold(little: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is timed with nothing of it in the page cache, and compared like all others."""
    case = ("hdf5", "jpeg", 256)
    needs_cold(benchmark_of("encoding.ColdEncoded.time_open_read_6mib", case).do_setup())
    assert run(benchmark_of("encoding.ColdEncoded.time_open_read_6mib", case))["samples"][0] > 0
    emptied: list[Path] = []
    monkeypatch.setattr(page_cache, "empty", emptied.append)
    read_many = storage_impl.ImageStore.read_many

    def wrong(store: Any) -> Any:
        images, labels = read_many(store)
        return 255 - images, labels

    monkeypatch.setattr(storage_impl.ImageStore, "read_many", wrong)
    benchmark = benchmark_of("encoding.ColdEncoded.time_open_read_6mib", case)
    with pytest.raises(RuntimeError, match="differs from what was written"):
        benchmark.do_setup()
    benchmark.do_teardown()
    assert len(emptied) == 1


@pytest.mark.parametrize("name", ["PillowAlone.time_decode_6mib", "Folder.time_read_6mib"])
def test_wrong_files_have_no_figure(
    name: str, little: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Pillow makes of the files is compared, too."""
    encode = encoding.encode
    monkeypatch.setattr(encoding, "encode", lambda image, kind: encode(255 - image, kind))
    benchmark = benchmark_of(f"encoding.{name}", ("png", 256))
    with pytest.raises(RuntimeError, match="differs from what was written"):
        benchmark.do_setup()
    benchmark.do_teardown()


def test_files_of_a_folder_are_stored_as_they_are(
    little: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of JPEG files holds the very bytes of one's own; others are encoded."""
    folder = tmp_path_factory.mktemp("photos")
    images = datasets.synthetic.photos([(40, 60), (64, 48), (50, 50)])
    own = set()
    for number, image in enumerate(images[:2]):
        file = io.BytesIO()
        Image.fromarray(image).convert("L" if number else "RGB").save(file, "JPEG", quality=71)
        (folder / f"{number}.jpg").write_bytes(file.getvalue())
        own.add(file.getvalue())
    Image.fromarray(images[2]).save(folder / "2.png")
    Image.fromarray(np.full((8, 8), 51_234, np.uint16)).save(folder / "deep.png")
    monkeypatch.setenv(datasets.VARIABLE, str(folder))
    monkeypatch.setattr(encoding, "GRID", ((1, 1),) * 5)
    case = ("hdf5", "jpeg", "64 to 512")
    run(benchmark_of("encoding.EncodedRead.time_read_20", case))
    run(benchmark_of("encoding.EncodedWrite.time_write_6mib", case))
    (path,) = (path for path in little.iterdir() if path.name.startswith("hdf5-jpeg"))
    with storage_impl.open_store(path) as store:
        stored = {store.read_encoded(index)[0] for index in range(len(store))}
    assert len(stored) == 3
    assert own < stored


def save_every_kind(folder: Path) -> None:
    """Save small images as files of each kind that a folder of photos may hold."""
    image = datasets.synthetic.photos([(48, 80)])[0]
    colour = Image.fromarray(image)
    alpha = np.tile(np.arange(80, dtype=np.uint8), (48, 1))
    clear = Image.fromarray(np.dstack((image, alpha)))
    other = {"save_all": True, "append_images": [colour.transpose(Image.Transpose.ROTATE_180)]}
    kinds: tuple[tuple[str, Image.Image, dict[str, Any]], ...] = (
        ("colour.jpg", colour, {"quality": 80}),
        ("grey.jpg", colour.convert("L"), {}),
        ("cmyk.jpg", colour.convert("CMYK"), {}),
        ("two.jpg", colour, {"format": "MPO", **other}),
        ("grey.png", colour.convert("L"), {}),
        ("clear.png", clear, {}),
        ("opaque.png", colour.convert("RGBA"), {}),
        ("palette.png", colour.quantize(16), {}),
        ("moving.png", colour, other),
        ("lossy.webp", colour, {}),
        ("clear.webp", clear, {"lossless": True, "exact": True}),
        ("moving.webp", colour, other),
        ("colour.bmp", colour, {}),
    )
    for number, (name, picture, options) in enumerate(kinds):
        ImageChops.offset(picture, number, 0).save(folder / name, **options)
    rows = image_files.idat((b"\0" + bytes(80 * 6)) * 48)
    (folder / "deep.png").write_bytes(image_files.png(80, 48, 16, 2, rows))


@pytest.mark.parametrize("kind", encoding.ENCODINGS)
def test_every_kind_of_file_has_a_figure(
    kind: str,
    little: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A folder may hold grey and transparent images, animations, 16 bits, and other formats."""
    folder = tmp_path_factory.mktemp("photos")
    save_every_kind(folder)
    monkeypatch.setenv(datasets.VARIABLE, str(folder))
    for name in ("EncodedRead.time_read_20", "EncodedWrite.time_write_6mib"):
        run(benchmark_of(f"encoding.{name}", ("lmdb", kind, "64 to 512")))
    run(benchmark_of("encoding.PillowAlone.time_encode_6mib", (kind, "64 to 512")))
    if kind != "raw":
        run(benchmark_of("encoding.Folder.time_read_6mib", (kind, "64 to 512")))
        (path,) = (path for path in little.iterdir() if path.name.startswith("lmdb"))
        own = {"jpeg": ("colour.jpg", "grey.jpg", "two.jpg"), "webp": ("lossy.webp", "clear.webp")}
        names = own.get(kind, ("grey.png", "clear.png", "opaque.png"))
        with storage_impl.open_store(path) as store:
            stored = {store.read_encoded(index)[0] for index in range(len(store))}
        assert {(folder / name).read_bytes() for name in names} < stored
        assert len(stored) == 8


def test_files_of_a_folder_have_about_the_pixels_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enough of them are taken, repeatedly if need be, and at least one however large it is."""
    for number in range(9):
        Image.new("RGB", (100, 100), (number, 0, 0)).save(tmp_path / f"{number}.png")
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path))
    for pixel_bytes, count, different in ((10, 1, 1), (133_000, 4, 4), (300_000, 10, 9)):
        files, labels = datasets.originals(pixel_bytes)
        assert (len(files), len(labels), len(set(files))) == (count, count, different)


def test_folder_without_files_to_store(
    little: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no file is PNG, JPEG or WebP, the images are resized like those of one size."""
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(datasets.synthetic.photos([(48, 80)])[0]).save(folder / "only.bmp")
    monkeypatch.setenv(datasets.VARIABLE, str(folder))
    assert datasets.originals(1000)[0] == []
    run(benchmark_of("encoding.EncodedRead.time_read_20", ("hdf5", "jpeg", "64 to 512")))
    (path,) = (path for path in little.iterdir() if path.name.startswith("hdf5"))
    with storage_impl.open_store(path) as store:
        shapes = [store.read_one(index)[0].shape for index in range(len(store))]
    assert shapes == [(64 * height, 64 * width, 3) for height, width in encoding.GRID]


def test_images_of_a_folder_of_one_size_are_cropped_and_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not stretched, and each file is taken before one is taken again."""
    for number in range(3):
        wide = np.zeros((256, 512, 3), np.uint8)
        wide[:, :128] = 255
        wide[..., 1] = number
        Image.fromarray(wide).save(tmp_path / f"{number}.png")
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path))
    images, _ = datasets.photos([(256, 256)] * 4)
    assert len({image.tobytes() for image in images}) == 3
    assert all((image.shape, image[..., 0].max()) == ((256, 256, 3), 0) for image in images)


# Bytes of files over those of the pixels, of photographs of 256 pixels a side.
PHOTOGRAPHS = {"png": 0.52, "jpeg": 0.09, "webp": 0.43}


def test_synthetic_photos_take_the_bytes_of_photographs() -> None:
    """What the encodings make of them is what they make of photographs, within 12%."""
    photos = datasets.synthetic.photos([(256, 256)] * 12)
    for name, expected in PHOTOGRAPHS.items():
        found = [len(encoding.encode(photo, name)) / photo.size for photo in photos]
        assert np.mean(found) == pytest.approx(expected, rel=0.12), name


def test_synthetic_photos_are_the_same_everywhere() -> None:
    """They have the sizes that were asked for, differ, and do not change."""
    sizes = [(64, 128), (128, 64), (128, 128), (1, 3)]
    photos = datasets.synthetic.photos(sizes)
    assert [photo.shape for photo in photos] == [(*size, 3) for size in sizes]
    for one, other in zip(photos, datasets.synthetic.photos(sizes), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(photos[0][:, :64], photos[1][:64])
