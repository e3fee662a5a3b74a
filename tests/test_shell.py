"""`storage-impl` in the shell: what it makes, says, refuses and returns."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import storage_impl
from storage_impl.__main__ import main
from storage_impl._files import Directory
from storage_impl._lock import WriterLock
from storage_impl._progress import Progress
from tests.samples import SHAPE, images_of, labels_of

BACKENDS = list(storage_impl.BACKENDS)
COUNT = 23

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Run a command: its exit code, and what it wrote to stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(each) for each in arguments])
        except SystemExit as error:  # of argparse
            code = int(str(error.code))
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two labels, of three formats, four modes and differing sizes."""
    folder = tmp_path / "photos"
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number, suffix in enumerate((".png", ".jpg", ".webp")):
            pixels = images_of(1, (8 + number, 9, 3), 10 * label + number)[0]
            Image.fromarray(pixels).save(folder / name / f"{number}{suffix}", lossless=True)
    Image.fromarray(images_of(1, (6, 5, 1))[0, :, :, 0]).save(folder / "dog" / "grey.png")
    (folder / "dog" / ".hidden").write_text("no image")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of the sample images."""
    path = tmp_path / "samples"
    with storage_impl.create_store(path, "hdf5", image_shape=SHAPE) as opened:
        opened.write_many(images_of(COUNT), labels_of(COUNT))
    return path


def content(path: Path) -> tuple[Any, list[int]]:
    """All that a store holds."""
    with storage_impl.open_store(path, verify=True) as opened:
        images, labels = opened.read_many()
        opened.verify()
    return images, labels.tolist()


def hidden(directory: Path) -> list[str]:
    """What lies in a directory under a name that begins with a dot."""
    return [each.name for each in directory.iterdir() if each.name.startswith(".")]


# -- import --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["lmdb", "hdf5"])
def test_import_keeps_the_files(tmp_path: Path, folder: Path, shell: Shell, backend: str) -> None:
    """Without a size the bytes of the files are kept, and subfolders are labels."""
    code, out, err = shell("import", folder, tmp_path / "made", "--backend", backend)
    assert (code, err) == (0, "")
    assert "made: 7 images, 2 labels" in out
    files = sorted(folder.glob("cat/*")) + sorted(folder.glob("dog/[!.]*"))
    with storage_impl.open_store(tmp_path / "made") as opened:
        assert (opened.backend, opened.encoding, opened.image_shape) == (backend, "mixed", None)
        assert [opened.read_encoded(i)[0] for i in range(7)] == [
            each.read_bytes() for each in files
        ]
        assert opened.read_labels().tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_import_with_a_size(tmp_path: Path, folder: Path, shell: Shell, backend: str) -> None:
    """With a size all images become RGB pixels of it."""
    made = tmp_path / "made"
    assert shell("import", folder, made, "--backend", backend, "--size", "4x6")[0] == 0
    with storage_impl.open_store(made) as opened:
        assert opened.image_shape == (4, 6, 3)
        assert opened.encoding == ("png" if backend == "png" else "raw")
        assert len(opened) == 7
        grey = opened.read_one(6)[0]
    assert np.array_equal(grey[..., 0], grey[..., 1])


def test_import_decoded(tmp_path: Path, folder: Path, shell: Shell) -> None:
    """Decoded and not resized, each image keeps its size and its channels."""
    assert shell("import", folder, tmp_path / "made", "--encoding", "raw")[0] == 0
    images, labels = content(tmp_path / "made")
    assert labels == [0, 0, 0, 1, 1, 1, 1]
    assert np.array_equal(images[0], images_of(1, (8, 9, 3))[0])
    assert np.array_equal(images[6], images_of(1, (6, 5, 1))[0])


def test_import_without_labels(tmp_path: Path, folder: Path, shell: Shell) -> None:
    """Files that lie in the folder itself have the label 0."""
    code, out, _ = shell("import", folder / "cat", tmp_path / "made")
    assert code == 0
    assert "3 images, 1 label" in out
    assert content(tmp_path / "made")[1] == [0, 0, 0]


BAD_FILES: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda whole: b"no image",
    "nothing": lambda whole: b"",
    "cut off": lambda whole: whole[:-40],
}


@pytest.mark.parametrize("options", [[], ["--size", "4"]], ids=["kept", "resized"])
@pytest.mark.parametrize("bad", BAD_FILES)
def test_bad_files(
    tmp_path: Path, folder: Path, shell: Shell, bad: str, options: list[str]
) -> None:
    """A bad file stops the import and is named; asked to, the import names it and goes on."""
    whole = (folder / "cat" / "0.png").read_bytes()
    (folder / "cat" / "1 bad.png").write_bytes(BAD_FILES[bad](whole))
    code, out, err = shell("import", folder, tmp_path / "made", *options)
    assert (code, out) == (1, "")
    assert "1 bad.png" in err
    assert "--skip-bad" in err
    assert sorted(os.listdir(tmp_path)) == ["photos"]
    code, out, err = shell("import", folder, tmp_path / "made", *options, "--skip-bad")
    assert code == 0
    assert "7 images, 2 labels, 1 skipped" in out
    assert len(err.splitlines()) == 1
    assert "skipped" in err
    assert "1 bad.png" in err
    assert content(tmp_path / "made")[1] == [0, 0, 0, 1, 1, 1, 1]


def test_all_files_bad(tmp_path: Path, store: Path, shell: Shell) -> None:
    """A folder without a single image makes no empty store, and replaces none."""
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "texts" / name).write_text("no image")
    for options in ([], ["--size", "4"]):
        code, out, err = shell(
            "import", tmp_path / "texts", store, "--skip-bad", "--overwrite", *options
        )
        assert (code, out) == (1, "")
        assert "none of the 2 files" in err
        assert "a.txt" in err
    assert len(content(store)[1]) == COUNT
    assert hidden(tmp_path) == []


def test_16_bits(tmp_path: Path, shell: Shell) -> None:
    """More than 8 bits a channel are not cut down in silence."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(np.arange(20, dtype=np.uint16).reshape(4, 5)).save(folder / "deep.png")
    for options in ([], ["--size", "4"], ["--encoding", "raw"]):
        code, _, err = shell("import", folder, tmp_path / "made", *options)
        assert code == 1
        assert "deep.png" in err


def test_refused_imports(tmp_path: Path, folder: Path, shell: Shell) -> None:
    """What makes no sense is refused, and nothing is made."""
    (tmp_path / "empty").mkdir()
    refused: list[tuple[list[object], str]] = [
        (["import", tmp_path / "empty", tmp_path / "made"], "no files"),
        (["import", tmp_path / "missing", tmp_path / "made"], "missing"),
        (["import", folder, tmp_path / "no" / "made"], "create it first"),
        (["import", folder, tmp_path / "made", "--encoding", "keep", "--size", "4"], "--size"),
        (["import", folder, tmp_path / "made", "--backend", "png"], "png"),
    ]
    for arguments, message in refused:
        code, _, err = shell(*arguments)
        assert code == 1
        assert message in err
        assert not (tmp_path / "made").exists()
    (folder / "beside.png").write_bytes(b"")
    assert "beside.png" in shell("import", folder, tmp_path / "made")[2]
    assert hidden(tmp_path) == []


# -- convert -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shards", [None, 3])
def test_convert(
    tmp_path: Path, store: Path, shell: Shell, backend: str, shards: int | None
) -> None:
    """To another backend, as one store or as a dataset."""
    options = ["--shards", shards] if shards else []
    code, out, _ = shell("convert", store, tmp_path / "made", "--backend", backend, *options)
    assert code == 0
    assert "made: 23 images" in out
    images, labels = content(tmp_path / "made")
    assert np.array_equal(images, images_of(COUNT))
    assert labels == labels_of(COUNT).tolist()
    with storage_impl.open_store(tmp_path / "made") as opened:
        assert opened.backend == backend
        assert isinstance(opened, storage_impl.shards.ShardedStore) == bool(shards)
    assert hidden(tmp_path) == []


def test_convert_merges_segments(tmp_path: Path, shell: Shell) -> None:
    """A store of many small writes becomes one of few files."""
    with storage_impl.create_store(tmp_path / "many", "hdf5", image_shape=SHAPE) as opened:
        for index in range(12):
            opened.write_one(images_of(1, first=index)[0], index)
    assert shell("convert", tmp_path / "many", tmp_path / "few")[0] == 0
    files = {name: len(list((tmp_path / name).rglob("*.h5"))) for name in ("many", "few")}
    assert files == {"many": 12, "few": 1}
    assert np.array_equal(content(tmp_path / "few")[0], images_of(12))


def test_convert_keeps_or_changes_the_encoding(tmp_path: Path, folder: Path, shell: Shell) -> None:
    """Files go on as they are, unless another encoding is asked for."""
    assert shell("import", folder, tmp_path / "one")[0] == 0
    assert shell("convert", tmp_path / "one", tmp_path / "two", "--backend", "hdf5")[0] == 0
    with (
        storage_impl.open_store(tmp_path / "one") as one,
        storage_impl.open_store(tmp_path / "two") as two,
    ):
        assert two.encoding == "mixed"
        assert [one.read_encoded(i) for i in range(7)] == [two.read_encoded(i) for i in range(7)]
    assert shell("convert", tmp_path / "two", tmp_path / "raw", "--encoding", "raw")[0] == 0
    for ours, theirs in zip(
        content(tmp_path / "raw")[0], content(tmp_path / "one")[0], strict=True
    ):
        assert np.array_equal(ours, theirs)
    code, _, err = shell(
        "convert", tmp_path / "one", tmp_path / "no", "--backend", "png", "--encoding", "keep"
    )
    assert code == 1
    assert "mixed" in err


def test_convert_a_damaged_store(tmp_path: Path, store: Path, shell: Shell) -> None:
    """Damage is not handed on with new checksums."""
    damage(store, 5)
    code, _, err = shell("convert", store, tmp_path / "made")
    assert code == 3
    assert "image 5" in err
    assert sorted(os.listdir(tmp_path)) == ["samples"]


# -- verify and info -----------------------------------------------------------------------------


def damage(store: Path, index: int) -> None:
    """Change a pixel of an image on disk."""
    pixels = images_of(1, first=index)[0].tobytes()
    for file in store.rglob("*.h5"):
        data = bytearray(file.read_bytes())
        if (at := data.find(pixels)) >= 0:
            data[at + 3] ^= 1
            file.write_bytes(data)


def test_verify(store: Path, shell: Shell) -> None:
    """Sound or not, in words, as JSON, and by the exit code."""
    assert shell("verify", store)[:2] == (0, f"{store}: 23 images, all as they were written\n")
    code, out, _ = shell("verify", store, "--json")
    assert code == 0
    assert json.loads(out) == {
        "path": str(store), "images": 23, "sound": True, "damaged": [], "problem": None,
    }  # fmt: skip
    damage(store, 5)
    damage(store, 11)
    code, out, _ = shell("verify", store)
    assert code == 3
    assert "images 5, 11" in out
    code, out, _ = shell("verify", store, "--json")
    assert code == 3
    report = json.loads(out)
    assert report["damaged"] == [5, 11]
    assert report["sound"] is False
    assert "checksum" in report["problem"] or "written" in report["problem"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_info(tmp_path: Path, store: Path, shell: Shell, backend: str) -> None:
    """What it is, how many, how large, and the versions."""
    made = tmp_path / "made"
    shell("convert", store, made, "--backend", backend, "--shards", 2)
    code, out, _ = shell("info", made, "--json")
    assert code == 0
    facts = json.loads(out)
    usage = storage_impl.open_store(made).disk_usage()
    assert facts["backend"] == backend
    assert facts["images"] == facts["labels"] == 23
    assert facts["image_shape"] == list(SHAPE)
    assert facts["shards"] == 2
    assert facts["apparent_bytes"] == usage.apparent
    assert facts["allocated_bytes"] == usage.allocated
    assert facts["versions"]["storage_impl"] == storage_impl.__version__
    code, out, _ = shell("info", made)
    assert code == 0
    assert "5 x 7 pixels, 3 channels" in out
    assert f"{usage.apparent:,}" in out


@pytest.mark.parametrize("command", ["verify", "info"])
def test_no_store(tmp_path: Path, shell: Shell, command: str) -> None:
    """What is not there is told from what is none."""
    code, out, err = shell(command, tmp_path / "missing")
    assert (code, out) == (1, "")
    assert "does not exist" in err
    code, out, err = shell(command, tmp_path)
    assert code == 3
    assert "not a store" in err


# -- export --------------------------------------------------------------------------------------


def test_export_and_import_again(tmp_path: Path, folder: Path, shell: Shell) -> None:
    """The files come back, in the subfolders that they came from."""
    shell("import", folder, tmp_path / "made")
    code, out, _ = shell("export", tmp_path / "made", tmp_path / "files")
    assert code == 0
    assert "files: 7 images" in out
    found = sorted(each for each in (tmp_path / "files").rglob("*") if each.is_file())
    wanted = sorted(folder.glob("cat/*")) + sorted(folder.glob("dog/[!.]*"))
    assert [each.read_bytes() for each in found] == [each.read_bytes() for each in wanted]
    assert [each.parent.name for each in found] == ["cat"] * 3 + ["dog"] * 4
    assert [each.suffix for each in found] == [
        ".jpg" if w.suffix == ".jpg" else w.suffix for w in wanted
    ]


def test_export_pixels(tmp_path: Path, store: Path, shell: Shell) -> None:
    """Pixels become PNG files, without loss."""
    assert shell("export", store, tmp_path / "files")[0] == 0
    file = tmp_path / "files" / str(labels_of(1, 4)[0]) / "00000004.png"
    with Image.open(file) as image:
        assert np.array_equal(np.asarray(image), images_of(1, first=4)[0])


def test_hostile_names(tmp_path: Path, folder: Path, shell: Shell) -> None:
    """Names of labels that lead out of the folder are not used."""
    shell("import", folder, tmp_path / "made")
    for names in ('["../../up", "b"]', '["/abs", "b"]', '["..", "b"]', "[1, 2]", "7", "["):
        (tmp_path / "made" / "labels.json").write_text(names)
        assert shell("export", tmp_path / "made", tmp_path / "files", "--overwrite")[0] == 0
        assert sorted(os.listdir(tmp_path / "files")) == ["0", "1"]


# -- what is there already -----------------------------------------------------------------------


def test_overwrite(tmp_path: Path, store: Path, folder: Path, shell: Shell) -> None:
    """What exists stays unless asked, and then what replaces it is whole."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "diary.txt").write_text("keep me")
    commands: list[list[object]] = [
        ["import", folder, tmp_path / "made"],
        ["convert", store, tmp_path / "made"],
        ["export", store, tmp_path / "made"],
    ]
    for command in commands:
        code, _, err = shell(*command)
        assert code == 1
        assert "use --overwrite to replace it" in err
        code, _, err = shell(*command, "--overwrite")
        assert code == 1
        assert "neither a store nor" in err
    assert (tmp_path / "made" / "diary.txt").read_text() == "keep me"
    shutil.rmtree(tmp_path / "made")
    (tmp_path / "empty").mkdir()
    (tmp_path / "made").symlink_to(tmp_path / "empty")
    for command in commands:
        assert "neither a store nor" in shell(*command, "--overwrite")[2]
    (tmp_path / "made").unlink()
    for command in commands[:2]:
        assert shell(*command, "--overwrite")[0] == 0
        assert shell(*command)[0] == 1
        assert shell(*command, "--overwrite")[0] == 0
    assert content(tmp_path / "made")[1] == labels_of(COUNT).tolist()
    assert shell("convert", store, store, "--backend", "lmdb", "--overwrite")[0] == 0
    assert np.array_equal(content(store)[0], images_of(COUNT))
    for _ in range(2):
        assert shell("export", store, tmp_path / "files", "--overwrite")[0] == 0
    assert hidden(tmp_path) == []


def test_failed_overwrite(tmp_path: Path, store: Path, folder: Path, shell: Shell) -> None:
    """Where the new one fails, the old one stays."""
    (folder / "cat" / "bad.png").write_text("no image")
    assert shell("import", folder, store, "--overwrite")[0] == 1
    assert np.array_equal(content(store)[0], images_of(COUNT))
    assert hidden(tmp_path) == []


def test_leftover_of_an_export(tmp_path: Path, store: Path, shell: Shell) -> None:
    """What a killed export left is removed by the next, and the exported folder has files only."""
    killed_at_the_first_image = (
        "import os, signal, sys; from storage_impl import codecs, __main__ as shell; "
        "codecs.encode = lambda *_: os.kill(os.getpid(), signal.SIGKILL); shell.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", killed_at_the_first_image, "export", store, tmp_path / "files"]
    killed = subprocess.run(command, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 1
    for _ in range(2):
        assert shell("export", store, tmp_path / "files", "--overwrite")[0] == 0
        assert hidden(tmp_path) == []
        files = [each for each in (tmp_path / "files").rglob("*") if each.is_file()]
        assert len(files) == COUNT
        assert {each.suffix for each in files} == {".png"}


def test_leftover_of_an_export_that_had_no_lock(tmp_path: Path, store: Path, shell: Shell) -> None:
    """So is what one left that was killed before it had locked its folder."""
    killed_before_it_locks = (
        "import os, signal, sys; from storage_impl import __main__ as shell; "
        "shell.WriterLock = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "shell.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", killed_before_it_locks, "export", store, tmp_path / "files"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (left,) = hidden(tmp_path)
    assert os.listdir(tmp_path / left) == []
    assert shell("export", store, tmp_path / "files")[0] == 0
    assert hidden(tmp_path) == []


def test_export_beside_one_that_clears_up(
    tmp_path: Path, store: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that another command removed before it was locked is made again."""
    removed: list[Path] = []

    def remove_first(directory: Directory) -> WriterLock:
        if not removed:
            removed.append(directory.path)
            directory.path.rmdir()
        return WriterLock(directory)

    monkeypatch.setattr("storage_impl.__main__.WriterLock", remove_first)
    assert shell("export", store, tmp_path / "files")[0] == 0
    assert removed
    assert sum(each.is_file() for each in (tmp_path / "files").rglob("*")) == COUNT
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("when", ["old one renamed", "new one renamed", "old one half removed"])
def test_interrupted_overwrite(
    tmp_path: Path, store: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Ctrl-C while the new store takes the place of the old one: one of them is there, whole."""
    made = tmp_path / "made"
    shell("convert", store, made)
    rename, rmtree = os.rename, shutil.rmtree
    interrupted: list[Path] = []

    def interrupt(path: Path, now: bool) -> None:
        if now and not interrupted:
            interrupted.append(path)
            raise KeyboardInterrupt

    def renamed(path: Any, target: Any) -> None:
        rename(path, target)
        interrupt(path, made == {"old one renamed": path, "new one renamed": target}.get(when))

    def removed(path: Any, **options: Any) -> None:
        if when == "old one half removed":
            (path / "store.json").unlink(missing_ok=True)
        interrupt(path, when == "old one half removed")
        rmtree(path, **options)

    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(shutil, "rmtree", removed)
    assert shell("convert", store, made, "--backend", "lmdb", "--overwrite")[0] == 130
    monkeypatch.undo()
    assert np.array_equal(content(made)[0], images_of(COUNT))
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_old_store_that_cannot_be_put_back_at_first(
    tmp_path: Path,
    store: Path,
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    """It is put back all the same, and not removed as if there were a new one."""
    made = tmp_path / "made"
    shell("convert", store, made)
    rename = os.rename
    failures = [error(), error()]

    def renamed(path: Any, target: Any) -> None:
        if made == target and failures:
            raise failures.pop()
        rename(path, target)

    monkeypatch.setattr(os, "rename", renamed)
    assert shell("convert", store, made, "--backend", "lmdb", "--overwrite")[0] in (1, 130)
    monkeypatch.undo()
    with storage_impl.open_store(made) as opened:
        assert opened.backend == "hdf5"
    assert np.array_equal(content(made)[0], images_of(COUNT))
    assert hidden(tmp_path) == []


def test_leftover_of_a_replacement(tmp_path: Path, store: Path, shell: Shell) -> None:
    """What a command did not finish removing is removed by the next."""
    left = tmp_path / ".made.making-0123456789abcdef-replaced"
    left.mkdir()
    (left / "00000000.png").write_bytes(b"")
    shutil.copytree(store, tmp_path / "made")
    assert shell("convert", store, tmp_path / "made", "--overwrite")[0] == 0
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("name", ["made", "[made]"])
def test_killed_between_the_two_renames(
    tmp_path: Path, store: Path, folder: Path, shell: Shell, name: str
) -> None:
    """The next command puts the old target back, which is in no other place, and then looks."""
    made = tmp_path / name
    store.rename(tmp_path / f".{name}.making-0123456789abcdef-replaced")
    code, _, err = shell("import", folder, made)
    assert code == 1
    assert "use --overwrite to replace it" in err
    assert np.array_equal(content(made)[0], images_of(COUNT))
    assert hidden(tmp_path) == []


def test_leftovers(tmp_path: Path, store: Path, shell: Shell) -> None:
    """What a killed command left is removed by the next, and a living one's is not."""
    left = tmp_path / ".made.making-0123456789abcdef"
    shutil.copytree(store, left)
    lock = WriterLock(Directory(left))
    code, _, err = shell("convert", store, tmp_path / "made")
    assert code == 1
    assert "wait for it" in err
    assert left.exists()
    lock.release()
    assert shell("convert", store, tmp_path / "made")[0] == 0
    assert hidden(tmp_path) == []


# -- interrupted, and on a terminal --------------------------------------------------------------


def test_interrupted(tmp_path: Path, folder: Path) -> None:
    """Ctrl-C in the midst of an import leaves nothing, and says so by the exit code."""
    os.mkfifo(folder / "cat" / "3 waits.png")  # reading it waits for somebody who writes to it
    process = subprocess.Popen(
        [sys.executable, "-m", "storage_impl", "import", folder, tmp_path / "made"],
        stderr=subprocess.PIPE,
    )
    try:
        with open(folder / "cat" / "3 waits.png", "wb"):  # opened once the other end is
            assert len(hidden(tmp_path)) == 1
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.decode().strip() == "storage-impl: interrupted"
    assert sorted(os.listdir(tmp_path)) == ["photos"]


def test_nothing_on_a_pipe(tmp_path: Path, store: Path, shell: Shell) -> None:
    """Where nobody looks, there is no progress."""
    assert shell("convert", store, tmp_path / "made")[2] == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written(store: Path) -> None:
    """It is an error as any other, whether Python buffers the output or not."""
    for buffered in ("", "1"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "storage_impl", "info", store],
                stdout=full,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONUNBUFFERED": buffered},
                check=False,
            )
        assert done.returncode == 1
        assert done.stderr.decode().startswith("storage-impl: [Errno 28]")
        assert len(done.stderr.splitlines()) == 1


def test_closed_output(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an output, as for a program without a console, a command does what it does."""
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["info", str(store)]) == 0


class Terminal(io.StringIO):
    """A stream that says that somebody looks at it."""

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal() -> None:
    """How many, how fast and how long yet."""
    stream = Terminal()
    with Progress(1000, stream=stream) as progress:
        progress._last -= 1  # as if a second had passed
        progress._begun -= 2
        assert list(progress.count(range(500))) == list(range(500))
    shown = stream.getvalue()
    assert "1 of 1,000 images" in shown
    assert "/s" in shown
    assert "left" in shown
    assert shown.endswith("\r\x1b[K")


def test_no_progress_elsewhere() -> None:
    """A file gets none of it."""
    stream = io.StringIO()
    with Progress(10, stream=stream) as progress:
        progress._last -= 1
        progress.advance(5)
    assert stream.getvalue() == ""


def test_wrong_arguments(shell: Shell) -> None:
    """Argparse says what is missing, and exits with 2."""
    for arguments in (
        [],
        ["verify"],
        ["convert", "a", "b", "--shards", "0"],
        ["import", "a", "b", "--size", "x"],
    ):
        code, _, err = shell(*arguments)
        assert code == 2
        assert "usage" in err


def test_as_a_module() -> None:
    """`python -m storage_impl` is the same command."""
    done = subprocess.run(
        [sys.executable, "-m", "storage_impl", "--version"], capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == f"storage-impl {storage_impl.__version__}"
