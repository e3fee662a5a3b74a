"""What is stored of an image: encoded, decoded, refused; whatever the container."""

import _thread
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

import storage_impl
from storage_impl import _decoders, _image_header, _threads, codecs
from tests import image_files
from tests.contract import forks, needs_fork
from tests.image_files import file_of, photo

OPTIONS = {"compress_level": 6, "quality": 90}
ACCEPTED = image_files.accepted()
REFUSED = image_files.refused()
DAMAGED = image_files.damaged()
SHORT = settings(derandomize=True, deadline=None, database=None, max_examples=200)


@pytest.fixture(params=["Pillow", "simplejpeg"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With what JPEG is decoded."""
    name: str = request.param
    if name == "Pillow":
        monkeypatch.setattr(_decoders, "simplejpeg", None)
    else:
        pytest.importorskip(name)
    return name


@pytest.fixture(params=[False, True], ids=["", "LOAD_TRUNCATED_IMAGES"])
def truncated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether somebody else has told Pillow to accept broken files."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", request.param)


def encoding_of(data: bytes) -> str:
    return _image_header.read(data).encoding


# -- encoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (33, 1), (64, 65)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("encoding", ["raw", "png", "webp"])
def test_lossless(encoding: str, channels: int, shape: tuple[int, int]) -> None:
    """Every pixel comes back, and the colour of what is transparent too."""
    if (encoding, channels) == ("webp", 1):
        pytest.skip("webp holds colour")
    if (encoding, channels) == ("webp", 4) and not _decoders.KEEPS_TRANSPARENT:
        pytest.skip("this Pillow is refused")
    image = np.random.default_rng(1).integers(0, 256, (*shape, channels), np.uint8)
    data = codecs.encode(image, encoding, OPTIONS)
    np.testing.assert_array_equal(codecs.decode(data, encoding, image.shape), image)


def test_pillow_that_loses_transparent_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a Pillow before 9.4 WebP would lose them, and is refused."""
    monkeypatch.setattr(_decoders, "KEEPS_TRANSPARENT", False)
    with pytest.raises(storage_impl.InvalidInputError, match="Pillow 9.4 or later"):
        codecs.encode(photo(3, 3, 4), "webp", OPTIONS)
    assert codecs.encode(photo(3, 3, 3), "webp", OPTIONS)


@pytest.mark.skipif(not _decoders.KEEPS_TRANSPARENT, reason="this Pillow is refused")
def test_opaque_webp() -> None:
    """WebP drops an alpha that is 255 throughout; it comes back all the same."""
    image = photo(9, 8, 4)
    image[..., 3] = 255
    data = codecs.encode(image, "webp", OPTIONS)
    assert codecs.header_of(data, "webp").shape == (9, 8, 3)
    np.testing.assert_array_equal(codecs.decode(data, "webp", (9, 8, 4)), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_lossy(channels: int, decoder: str) -> None:
    """JPEG comes close, and closer the higher its quality."""
    image = photo(64, 64, channels)
    distances, lengths = [], []
    for quality in (1, 50, 90, 100):
        data = codecs.encode(image, "jpeg", {"quality": quality})
        found = codecs.decode(data, "jpeg", image.shape)
        distances.append(np.abs(found.astype(int) - image).mean())
        lengths.append(len(data))
    assert sorted(distances, reverse=True) == distances
    assert sorted(lengths) == lengths
    assert distances[2] < 6


@pytest.mark.parametrize(
    ("encoding", "shape", "message"),
    [
        ("jpeg", (5, 7, 4), "1 or 3 channels.*4"),
        ("webp", (5, 7, 1), "3 or 4 channels.*1"),
        ("webp", (16_384, 1, 3), "16,383"),
        ("jpeg", (1, 65_501, 1), "65,500"),
    ],
)
def test_images_that_an_encoding_cannot_hold(
    encoding: str, shape: tuple[int, int, int], message: str, tmp_path: Path
) -> None:
    """It is said when a store is made, and before the first byte of a call is written."""
    with pytest.raises(storage_impl.InvalidInputError, match=message):
        codecs.encode(np.zeros(shape, np.uint8), encoding, OPTIONS)
    with pytest.raises(storage_impl.InvalidInputError, match=message):
        storage_impl.create_store(
            tmp_path / "store", "lmdb", image_shape=shape, encoding=encoding
        ).close()
    fine, bad = np.zeros((4, 4, 3), np.uint8), np.zeros(shape, np.uint8)
    with storage_impl.create_store(
        tmp_path / "store", "lmdb", image_shape=None, encoding=encoding
    ) as store:
        for write in (
            lambda: store.write_one(bad, 1),
            lambda: store.write_many([fine, bad], [1, 2]),
            lambda: store.write_many(bad[np.newaxis], [1]),
            lambda: store.write_many(iter([fine, bad]), [1, 2]),
        ):
            with pytest.raises(storage_impl.InvalidInputError, match=message):
                write()
            assert len(store) == 0


def test_largest_sides() -> None:
    """The longest sides that an encoding may have come back."""
    for encoding, shape in {"jpeg": (1, 65_500, 1), "webp": (16_383, 1, 3)}.items():
        image = np.zeros(shape, np.uint8)
        data = codecs.encode(image, encoding, OPTIONS)
        np.testing.assert_array_equal(codecs.decode(data, encoding, shape), image)


def test_image_that_reading_would_refuse() -> None:
    """What is too small for its pixels to be read again is not written."""
    image = np.zeros((4000, 4000, 3), np.uint8)
    with pytest.raises(storage_impl.InvalidInputError, match="bomb; store it as png or raw"):
        codecs.encode(image, "webp", OPTIONS)


# -- files from elsewhere -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str, decoder: str, truncated: None) -> None:
    """Each kind of file gives the pixels that the docstring of `codecs` says."""
    data, pixels = ACCEPTED[name]
    encoding = encoding_of(data)
    assert codecs.header_of(data, encoding).shape == pixels.shape
    assert codecs.header_of(data, "mixed").shape == pixels.shape
    np.testing.assert_array_equal(codecs.decode(data, encoding, pixels.shape), pixels)


def test_cmyk_is_as_pillow_has_it() -> None:
    """Ink is taken from white, and close to the colours that it was made of."""
    colour = photo(19, 23)
    found = codecs.decode(ACCEPTED["jpeg of CMYK"][0], "jpeg", colour.shape)
    assert np.abs(found.astype(int) - colour).mean() < 6


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """Its header is enough to refuse a file, with a sentence."""
    data, message = REFUSED[name]
    with pytest.raises(storage_impl.InvalidInputError, match=message):
        codecs.header_of(data, "mixed")
    for encoding in ("png", "jpeg", "webp"):
        with pytest.raises(codecs.DecodeError):
            codecs.decode(data, encoding, (19, 23, 3))


def test_another_format() -> None:
    """A file of another format than the store's is refused, and it says which it is."""
    for name, (data, pixels) in ACCEPTED.items():
        for encoding in {"png", "jpeg", "webp"} - {encoding_of(data)}:
            with pytest.raises(storage_impl.InvalidInputError, match=f"{encoding_of(data)} file"):
                codecs.header_of(data, encoding)
            with pytest.raises(codecs.DecodeError, match=f"{encoding_of(data)} file"):
                codecs.decode(data, encoding, pixels.shape)
        with pytest.raises(codecs.DecodeError, match="expected"):
            codecs.decode(data, encoding_of(data), (18, *pixels.shape[1:])), name


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(name: str, decoder: str, truncated: None) -> None:
    """A file that is broken behind its header is no image, whatever Pillow was told to accept."""
    data = DAMAGED[name]
    encoding = name.partition(" ")[0]
    assert codecs.header_of(data, encoding).shape == (19, 23, 3)
    with pytest.raises(codecs.DecodeError):
        codecs.decode(data, encoding, (19, 23, 3))


@pytest.mark.parametrize("name", ["png", "jpeg", "jpeg progressive", "webp", "webp lossy"])
def test_cut_at_every_length(name: str, decoder: str, truncated: None) -> None:
    """No file that was cut short is taken for whole, but PNG may lack its last chunk."""
    data, pixels = ACCEPTED[name]
    encoding = encoding_of(data)
    for length in range(len(data)):
        try:
            found = codecs.decode(data[:length], encoding, pixels.shape)
        except codecs.DecodeError:
            continue
        assert length >= len(data) - (12 if encoding == "png" else 1)
        np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("name", sorted({"png of a palette with alpha", "jpeg", "jpeg progressive",
                                         "jpeg of CMYK", "png interlaced", "webp with alpha",
                                         "webp lossy with alpha"}))  # fmt: skip
def test_flipped_bits(name: str, decoder: str, truncated: None) -> None:
    """Flipped bits give pixels or a typed error, never a crash or another one."""
    data, pixels = ACCEPTED[name]
    encoding = encoding_of(data)
    chance = random.Random(1)
    bits = [8 * i + chance.randrange(8) for i in range(min(64, len(data)))]
    bits += [chance.randrange(8 * len(data)) for _ in range(200)]
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        decoded_or_refused(bytes(changed), encoding, pixels.shape)


def decoded_or_refused(data: bytes, encoding: str, shape: Any) -> None:
    with suppress(storage_impl.InvalidInputError):
        shape = codecs.header_of(data, encoding).shape
    with suppress(codecs.DecodeError):
        assert codecs.decode(data, encoding, shape).shape == shape


@SHORT
@given(
    start=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"]
    ),
    rest=st.binary(max_size=200),
)
def test_any_bytes(start: bytes, rest: bytes) -> None:
    """The parser of headers refuses or accepts; it raises nothing else."""
    with suppress(storage_impl.InvalidInputError):
        header = codecs.header_of(start + rest, "mixed")
        assert 0 < np.prod(header.shape) <= 1 << 30


@SHORT
@given(
    name=st.sampled_from([name for name, (data, _) in ACCEPTED.items() if len(data) < 3000]),
    place=st.integers(0, 1 << 30),
    new=st.binary(max_size=12),
    removed=st.integers(0, 12),
)
def test_edited_files(name: str, place: int, new: bytes, removed: int) -> None:
    """Bytes put into a good file or taken out of it."""
    data, pixels = ACCEPTED[name]
    place %= len(data)
    edited = data[:place] + new + data[place + removed :]
    decoded_or_refused(edited, encoding_of(data), pixels.shape)


def test_png_suite(decoder: str) -> None:
    """Each file of PngSuite has the pixels that Pillow reads, or is refused for what it is."""
    corpus = os.environ.get("STORAGE_IMPL_CORPUS")
    if corpus is None:
        pytest.skip("STORAGE_IMPL_CORPUS names no directory of files")
    files = sorted((Path(corpus) / "png").glob("*.png"))
    assert len(files) > 150
    for file in files:
        data = file.read_bytes()
        if data[24] == 16 or (file.name.startswith("x") and file.name != "xcsn0g01.png"):
            with pytest.raises(storage_impl.InvalidInputError):
                codecs.header_of(data, "png")
            continue
        shape = codecs.header_of(data, "png").shape
        with Image.open(io.BytesIO(data)) as image:
            mode = {1: "L", 3: "RGB", 4: "RGBA"}[shape[2]]
            expected = np.asarray(image.convert(mode)).reshape(shape)
            assert (shape[2] == 1) == (image.mode in ("1", "L"))
            transparent = image.mode == "P" and "transparency" in image.info
            assert (shape[2] == 4) == (transparent or image.mode in ("LA", "RGBA"))
        np.testing.assert_array_equal(codecs.decode(data, "png", shape), expected, file.name)


# -- what else a decoder must not do --------------------------------------------------------------

LIMITED = """
import resource, sys
from pathlib import Path
from storage_impl import codecs, errors
directory, spare = Path(sys.argv[1]), int(sys.argv[2])
codecs.decoders()
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + spare, taken + spare))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for file in sorted(directory.iterdir()):
    data = file.read_bytes()
    for encoding in ("png", "jpeg", "webp"):
        try:
            shape = codecs.header_of(data, encoding).shape
        except errors.InvalidInputError:
            continue
        try:
            codecs.decode(data, encoding, shape)
        except codecs.DecodeError as error:
            print(file.name, "DecodeError")
        else:
            print(file.name, shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, to limit the memory of a child")
@pytest.mark.unmeasured
def test_bombs(tmp_path: Path) -> None:
    """What a file may ask for is bounded: no bomb takes 300 MB or 20 s, and none ends a process."""
    jpeg = file_of(photo(19, 23), "JPEG")
    progressive = file_of(photo(19, 23), "JPEG", progressive=True)
    flat = file_of(photo(19, 23), "WEBP", lossless=True)
    large = b"\x0c\xe4\x0c\xe4"  # 3,300 pixels a side: just below 32 MiB
    header = b"\xe3\x0c\0\xe3\x0c\0"
    zeros = zlib.compress(bytes(300 << 20), 1)
    files = {
        "jpeg": image_files.with_frame(jpeg, 5, large),
        "jpeg of CMYK": image_files.with_frame(
            file_of(Image.new("CMYK", (23, 19)), "JPEG"), 5, large
        ),
        "jpeg progressive": image_files.with_frame(progressive, 5, large),
        "jpeg of scans": image_files.with_frame(image_files.scans(progressive, 60), 5, large),
        "webp": image_files.webp((b"VP8X", b"\0\0\0\0" + header), (b"VP8L", flat[20:])),
        "webp whole": file_of(Image.new("RGB", (3300, 3300)), "WEBP", lossless=True),
        "png": image_files.png(3300, 3300, 8, 2, image_files.chunk(b"IDAT", zeros)),
        "png short": image_files.png(3300, 3300, 8, 2, image_files.idat(b"")),
        "png text": image_files.png(
            9, 9, 8, 0,
            image_files.chunk(b"zTXt", b"a\0\0" + zeros),
            image_files.idat(bytes(90)),
        ),
    }  # fmt: skip
    for name, data in (files | {name: data for name, (data, _) in REFUSED.items()}).items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path, str(300 << 20)],
        capture_output=True, text=True, check=False, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()
    assert "webp whole (3300, 3300, 3)" in found
    assert "png (3300, 3300, 3)" in found
    assert "png short DecodeError" in found
    assert "png text (9, 9, 1)" in found
    assert not [line for line in found if line.split(" (")[0] in REFUSED]


def test_error_of_a_signal_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the handler of a signal raises while an image is decoded is not a damaged image."""

    def alarm(*_: object) -> None:
        raise ValueError("of somebody else")

    for name in ("png", "webp", "jpeg"):
        data, pixels = ACCEPTED[name]
        monkeypatch.setattr(_decoders, "simplejpeg", None)
        monkeypatch.setitem(_decoders._PILLOW, name, alarm)
        with pytest.raises(ValueError, match="somebody else") as caught:
            codecs.decode(data, name, pixels.shape)
        assert type(caught.value) is ValueError


# -- simplejpeg -----------------------------------------------------------------------------------


def test_decoders_are_named(decoder: str) -> None:
    """A result can say what decoded its images."""
    names = codecs.decoders()
    assert set(names) == {"png", "jpeg", "webp"}
    assert names["jpeg"].startswith(f"{decoder} ")
    assert names["png"] == names["webp"] == f"Pillow {Image.__version__}"


@pytest.mark.parametrize("side", [1, 8, 17, 64, 250])
@pytest.mark.parametrize("quality", [30, 75, 90, 100])
def test_simplejpeg_gives_the_pixels_of_pillow(
    side: int, quality: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the subsampling and the size, to the last bit."""
    pytest.importorskip("simplejpeg")
    files = [
        file_of(photo(side, side + 3, channels), "JPEG", quality=quality, **options)
        for channels in (1, 3)
        for options in (
            {"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True},
        )
    ]  # fmt: skip
    shapes = [codecs.header_of(data, "jpeg").shape for data in files]
    fast = codecs.decode_all(files, "jpeg", shapes)
    monkeypatch.setattr(_decoders, "simplejpeg", None)
    for one, other in zip(fast, codecs.decode_all(files, "jpeg", shapes), strict=True):
        np.testing.assert_array_equal(one, other)


# -- threads --------------------------------------------------------------------------------------


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads, as on two cores, whatever there are here."""
    monkeypatch.setattr(_threads, "cores", lambda: 2)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17])
def test_results_come_in_order(two_cores: None, count: int) -> None:
    """The results are in the order of the calls, and of two or more some are another thread's."""
    both = threading.Barrier(2, timeout=60)

    def call(number: int) -> tuple[int, int]:
        if number < 2 <= count:
            both.wait()  # until both threads are at work
        return number, threading.get_ident()

    found = _threads.each(call, [(i,) for i in range(count)])
    assert [number for number, _ in found] == list(range(count))
    assert len({thread for _, thread in found}) == min(count, 2)


@pytest.mark.parametrize("which", [0, 1, 5])
def test_error_in_a_thread(two_cores: None, which: int) -> None:
    """The error of a call is raised, in whichever thread it was; the next calls work."""
    with pytest.raises(ZeroDivisionError):
        _threads.each(lambda number: 1 // (number - which), [(i,) for i in range(6)])
    assert _threads.each(abs, [(-1,), (-2,), (-3,)]) == [1, 2, 3]


def test_damage_is_found_in_each_thread(two_cores: None) -> None:
    """Errors are returned in the places of their images."""
    data = ACCEPTED["jpeg"][0]
    found = codecs.decode_all([data, data[:99], data, b""] * 5, "jpeg", [(64, 64, 3)] * 20)
    assert all(isinstance(one, codecs.DecodeError) for one in found)
    image = photo(64, 64)
    png = codecs.encode(image, "png", OPTIONS)
    found = codecs.decode_all([png, png[:99], png] * 5, "png", [image.shape] * 15)
    assert [isinstance(one, codecs.DecodeError) for one in found] == [False, True, False] * 5


def test_interrupt(two_cores: None) -> None:
    """An interrupt passes through, and later calls work."""
    image = photo(64, 64)
    calls = [(image, "png", OPTIONS)] * 8

    def interrupted(*arguments: Any) -> bytes:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return codecs.encode(*arguments)

    with pytest.raises(KeyboardInterrupt):
        _threads.each(interrupted, calls)
    assert len(set(_threads.each(codecs.encode, calls))) == 1


def test_interrupt_while_another_thread_decodes(
    two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What images are decoded to does not change after the interrupt, nor after a second one."""
    image = photo(64, 64)
    data = [codecs.encode(image, "png", OPTIONS)] * 8
    rows = np.zeros((len(data), image.size), np.uint8)
    at_work = threading.Event()
    waits = threading.Event()
    decode, sleep = codecs.decode, time.sleep

    def slow(*arguments: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            at_work.wait(60)
            raise KeyboardInterrupt
        at_work.set()
        waits.wait(60)
        return decode(*arguments)

    def interrupted(seconds: float) -> None:
        if not waits.is_set():
            waits.set()
            raise KeyboardInterrupt("the second")
        sleep(seconds)

    monkeypatch.setattr(codecs, "decode", slow)
    monkeypatch.setattr(time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt, match="the second"):
        codecs.decode_all(data, "png", [image.shape] * len(data), list(rows))
    found = rows.copy()
    waits.set()
    sleep(0.1)
    np.testing.assert_array_equal(rows, found)
    assert found.any(axis=1).sum() == 1  # the other images were not begun


# Raises KeyboardInterrupt before each line in turn of a call, the standard library's lines among
# them, and makes another call after each.
INTERRUPTED = """
import sys
from storage_impl import _threads
_threads.cores = lambda: 2
calls = [(i,) for i in range(-8, 0)]
number, lines = 0, 1
while lines >= number:  # the last call came to that line
    number += 1
    lines = 0
    def trace(frame, event, _):
        global lines
        if event == "line":
            lines += 1
            if lines == number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace
    sys.settrace(trace)
    try:
        _threads.each(abs, calls)
    except KeyboardInterrupt:
        pass
    sys.settrace(None)
    assert _threads.each(abs, calls) == list(range(8, 0, -1))
print(number)
"""


@pytest.mark.unmeasured
def test_interrupt_at_any_line() -> None:
    """No interrupt leaves what the next call waits for, nor the end of the interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert int(done.stdout) > 10


@needs_fork
@forks
def test_fork(two_cores: None) -> None:
    """A child that was forked while threads decode starts its own."""
    image = photo(64, 64)
    data = [codecs.encode(image, "png", OPTIONS)] * 40
    shapes = [image.shape] * 40
    stop = threading.Event()

    def decode() -> None:
        while not stop.is_set():
            codecs.decode_all(data, "png", shapes)

    codecs.decode_all(data, "png", shapes)
    thread = threading.Thread(target=decode)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                found = codecs.decode_all(data, "png", shapes)
                os._exit(0 if all(np.array_equal(one, image) for one in found) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


@needs_fork
@forks
def test_fork_in_a_handler(two_cores: None) -> None:
    """A child of a handler that interrupts the calls takes the share of the thread it has not."""
    forked = threading.Event()
    children: list[int] = []
    found: list[int] = []
    again: list[int] = []

    def call(number: int) -> int:
        if threading.current_thread() is not threading.main_thread():
            forked.wait(60)
        elif not children:
            children.append(os.fork())
            forked.set()
            if children == [0]:
                signal.alarm(20)  # which ends a child that hangs
        return number

    try:
        found = _threads.each(call, [(i,) for i in range(8)])
        again = _threads.each(call, [(i,) for i in range(8)])
    finally:
        if children == [0]:  # which must not go on as another run of the tests
            os._exit(0 if found == again == list(range(8)) else 9)
    assert os.waitpid(children[0], 0)[1] == 0
    assert found == again == list(range(8))


AT_EXIT = """
import atexit, sys
import numpy as np
from storage_impl import _threads, codecs
_threads.cores = lambda: 2
image = np.zeros((64, 64, 3), np.uint8)
def encode_and_decode():
    data = codecs.encode_all([image] * 8, "png", {"compress_level": 1})
    found = codecs.decode_all(data, "png", [image.shape] * 8)
    print(sum(np.array_equal(one, image) for one in found))
if sys.argv[1] == "after others":
    encode_and_decode()
atexit.register(encode_and_decode)
"""


@pytest.mark.parametrize("when", ["first", "after others"])
@pytest.mark.unmeasured
def test_interpreter_that_ends(when: str) -> None:
    """Where no thread can be started any more, the caller does it all."""
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, when], capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["8"] * (1 if when == "first" else 2), "")


def test_no_thread_can_be_started(two_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where the system has no more of them."""

    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_threads, "_threads", [])
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    assert _threads.each(abs, [(-1,), (-2,), (-3,)]) == [1, 2, 3]
