"""LMDB ends the process where an error would do."""

import os
from pathlib import Path

import lmdb
import pytest

from tests.faults.tool import Server

PAGE = 4096
READERS = 512


def write(path: Path) -> None:
    """Make an environment of a hundred records and some pages."""
    with lmdb.open(str(path), map_size=2**24, max_readers=READERS) as env:
        with env.begin(write=True) as txn:
            for number in range(100):
                txn.put(b"%03d" % number, bytes(1000))


def read(path: Path) -> int:
    """Read it all."""
    with lmdb.open(str(path), readonly=True, create=False) as env, env.begin() as txn:
        return sum(len(value) for _, value in txn.cursor())


def write_with_whole_lock_file(path: Path) -> None:
    """Do as `write`, with the lock file's space allocated beforehand."""
    path.mkdir()
    with open(path / "lock.mdb", "wb") as file:
        file.write(bytes(PAGE * 10))
    write(path)


def is_sound(path: Path) -> bool:
    """Whether the pages are what LMDB takes for granted."""
    from storage_impl import DamagedStoreError
    from storage_impl._lmdb_pages import check_pages, read_metas

    descriptor = os.open(path / "data.mdb", os.O_RDONLY)
    try:
        check_pages(descriptor, max(read_metas(descriptor), key=lambda meta: meta.transaction))
    except DamagedStoreError:
        return False
    finally:
        os.close(descriptor)
    return True


@pytest.fixture
def zeroed(tmp_path: Path) -> Path:
    """An environment in which a leaf page in the middle is zeroed."""
    write(tmp_path)
    data = bytearray((tmp_path / "data.mdb").read_bytes())
    pages = range(2 * PAGE, len(data), PAGE)
    leaf = next(at for at in pages if data[at + 10] == 2 and b"050" in data[at : at + PAGE])
    data[leaf : leaf + PAGE] = bytes(PAGE)
    (tmp_path / "data.mdb").write_bytes(data)
    return tmp_path


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """An environment that was cut off after three pages."""
    write(tmp_path)
    os.truncate(tmp_path / "data.mdb", 3 * PAGE)
    return tmp_path


@pytest.mark.xfail(reason="LMDB's assertion ends the process with SIGABRT")
def test_zeroed_page(server: Server, zeroed: Path) -> None:
    """A page of zeros is reported."""
    assert not server.run(read, zeroed).signal


def test_zeroed_page_is_found_beforehand(zeroed: Path) -> None:
    """Around it: the pages are checked without LMDB before it follows a pointer."""
    assert not is_sound(zeroed)


@pytest.mark.xfail(reason="LMDB reads beyond the end of its file: SIGBUS")
def test_truncated_file(server: Server, cut: Path) -> None:
    """A file shorter than its last page is reported."""
    assert not server.run(read, cut).signal


def test_truncated_file_is_found_beforehand(cut: Path) -> None:
    """Around it: the last page that the meta pages name is compared with the file's length."""
    assert not is_sound(cut)


@pytest.fixture
def full_disk(small_disk: Path) -> Path:
    """A disk with no space but for a directory."""
    free = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize))
    return small_disk


@pytest.mark.xfail(reason="lock.mdb has holes, which LMDB fills through a map: SIGBUS")
def test_full_disk(server: Server, full_disk: Path) -> None:
    """An environment made on a full disk is an error."""
    assert not server.run(write, full_disk / "env").signal


def test_full_disk_with_whole_lock_file(server: Server, full_disk: Path) -> None:
    """Around it: the lock file is written, not only made long, before LMDB opens it."""
    assert "OSError" in server.run(write_with_whole_lock_file, full_disk / "env").raised
