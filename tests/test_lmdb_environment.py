"""How stores, threads, forks and processes share an LMDB environment: each race is forced."""

import contextlib
import errno
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

import storage_impl
from storage_impl import ImageStore, _lmdb_environment, _lmdb_pages, _lmdb_sharing
from storage_impl.lmdb import LmdbBackend
from tests import processes, raising
from tests.contract import forks, needs_fork
from tests.processes import LIMIT, OtherProcess
from tests.samples import SHAPE, images_of, labels_of

COUNT = 23
_kept: list[Any] = []

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store of 23 images."""
    with storage_impl.create_store(tmp_path / "store", "lmdb", image_shape=SHAPE) as store:
        store.write_many(images_of(COUNT), labels_of(COUNT))
    return tmp_path / "store"


@pytest.fixture
def other() -> Iterator[OtherProcess]:
    """A process that a test may leave in a state of its own."""
    process = OtherProcess()
    yield process
    process.kill()


def check(store: ImageStore, count: int = COUNT) -> None:
    images, labels = store.read_many()
    np.testing.assert_array_equal(images, images_of(count))
    np.testing.assert_array_equal(labels, labels_of(count))


def is_closed(path: Path) -> bool:
    """Whether no environment of the store is open in this process."""
    try:
        lmdb.open(os.fsencode(path), create=False, readonly=True, lock=False).close()
    except lmdb.Error:
        return False
    return True


# -- writers that are stopped or busy ------------------------------------------------------------


def hold_write_transaction(path: Path) -> None:
    """Begin to write, and go no further, as a process does that Ctrl-Z stopped."""
    env = lmdb.open(os.fsencode(path), create=False)
    _kept.extend((env, env.begin(write=True)))


def open_and_read(path: Path) -> None:
    """Open a store, read it, and read it in a fork."""
    with storage_impl.open_store(path) as store:
        check(store)
        if hasattr(os, "fork"):
            assert processes.read_in_a_fork(store) == 0
        check(store)


def test_stopped_writer(path: Path, other: OtherProcess) -> None:
    """Opening, also in a fork, waits for no writer."""
    other.call(hold_write_transaction, path)
    with OtherProcess() as reader:
        reader.call(open_and_read, path)


@pytest.mark.parametrize("mode", ["r", "a"])
def test_writer_grows_the_file_while_it_is_opened(
    path: Path, other_process: OtherProcess, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """That the map has become too short by then is no damage."""
    opened = lmdb.open
    calls = 0

    def slow(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        env = opened(*arguments, **options)
        calls += 1
        if calls == 1:
            other_process.call(write_through_lmdb, path, 1 << 20)
        return env

    # As where the address space is limited: the map is but twice as long as the file.
    monkeypatch.setattr(_lmdb_environment, "_MAP", 0)
    monkeypatch.setattr(_lmdb_environment, "_LEAST_MAP", 0)
    monkeypatch.setattr(lmdb, "open", slow)
    with storage_impl.open_store(path, mode) as store:
        check(store)
        other_process.call(write_through_lmdb, path, 4 << 20)
        check(store)
        if mode == "a":
            store.write_many(images_of(2, first=COUNT), labels_of(2, COUNT))
            check(store, COUNT + 2)
    assert calls > 2


def write_through_lmdb(path: Path, size: int) -> None:
    """Make the file of an environment longer, beside a writer of the package."""
    with lmdb.open(os.fsencode(path), create=False, max_dbs=3, map_size=1 << 28) as env:
        with env.begin(write=True) as txn:
            txn.put(b"filler", bytes(size), db=env.open_db(b"filler", txn))


def test_map_grows_in_little_space(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no long map can be had a short one grows, under readers, too."""
    monkeypatch.setattr(_lmdb_environment, "_MAP", 0)
    monkeypatch.setattr(_lmdb_environment, "_LEAST_MAP", 0)
    with storage_impl.open_store(path) as reader, storage_impl.open_store(path, "a") as store:
        for first in range(COUNT, COUNT + 1000, 250):
            store.write_many(images_of(250, first=first), labels_of(250, first))
            check(reader)
        check(store, COUNT + 1000)


# -- handlers of signals -------------------------------------------------------------------------


@needs_signals
@pytest.mark.parametrize("times", [1, 2])
def test_handler_closes_the_store_that_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The read that it interrupted ends, and then nothing is open."""
    stores = [storage_impl.open_store(path) for _ in range(times)]

    def close(*_: object) -> None:
        for store in stores:
            store.close()

    in_transaction(monkeypatch, lambda: signal.raise_signal(signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, close)
    try:
        image, label = stores[0].read_one(5)
    finally:
        signal.signal(signal.SIGUSR1, before)
    np.testing.assert_array_equal(image, images_of(COUNT)[5])
    assert label == labels_of(COUNT)[5]
    assert stores[0].closed
    assert is_closed(path)


def in_transaction(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Have something happen once in the midst of reading one image."""
    get_one = LmdbBackend._get_one
    actions = [action]

    def get(self: LmdbBackend, *arguments: Any) -> Any:
        if actions:
            actions.pop()()
        return get_one(self, *arguments)

    monkeypatch.setattr(LmdbBackend, "_get_one", get)


def test_close_in_another_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for a read, and the last read closes."""
    store = storage_impl.open_store(path)
    closing = threading.Thread(target=store.close)

    def close() -> None:
        closing.start()
        closing.join(LIMIT)
        assert not closing.is_alive()
        assert not is_closed(path)

    in_transaction(monkeypatch, close)
    image, _ = store.read_one(5)
    np.testing.assert_array_equal(image, images_of(COUNT)[5])
    assert is_closed(path)


def test_read_of_many_parts_outlasts_close(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that goes on in a transaction of its own, after the store was closed, is right."""
    store = storage_impl.open_store(path)
    monkeypatch.setattr(store._backend, "_at_once", 5)
    copy = LmdbBackend._copy

    def close(self: LmdbBackend, *arguments: Any) -> Any:
        copied = copy(self, *arguments)
        store.close()
        return copied

    monkeypatch.setattr(LmdbBackend, "_copy", close)
    images, labels = store.read_many()
    np.testing.assert_array_equal(images, images_of(COUNT))
    np.testing.assert_array_equal(labels, labels_of(COUNT))
    assert is_closed(path)


@needs_signals
def test_handler_opens_for_writing_what_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That cannot be while the read goes on, and is said; after it, it can."""
    store = storage_impl.open_store(path)

    def open_it() -> None:
        with pytest.raises(storage_impl.ReadFailedError, match=r"after the handler") as caught:
            storage_impl.open_store(path, "a")
        assert caught.value.errno == errno.EDEADLK

    in_transaction(monkeypatch, open_it)
    store.read_one(5)
    with storage_impl.open_store(path, "a") as writer:
        writer.write_one(images_of(1, first=COUNT)[0], labels_of(1, COUNT)[0])
        check(writer, COUNT + 1)
    check(store)


# -- forks ---------------------------------------------------------------------------------------


def fork_while_garbage_is_read_beside(path: Path) -> int:
    """Fork; meanwhile a thread that reads drops another store. The exit status of the child."""
    store = storage_impl.open_store(path)
    garbage = [storage_impl.open_store(path)]
    begun = threading.Event()
    get_one = LmdbBackend._get_one

    def get(self: LmdbBackend, *arguments: Any) -> Any:
        begun.set()
        while not _lmdb_sharing.forks:
            pass
        garbage.clear()
        return get_one(self, *arguments)

    LmdbBackend._get_one = get  # type: ignore[method-assign]
    try:
        thread = threading.Thread(target=store.read_one, args=(5,))
        thread.start()
        begun.wait(LIMIT)
        child = os.fork()
    finally:
        LmdbBackend._get_one = get_one  # type: ignore[method-assign]
    if child == 0:
        try:
            check(store)
            os._exit(0)
        finally:
            os._exit(9)
    thread.join(LIMIT)
    check(store)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_fork
def test_fork_while_a_reading_thread_drops_a_store(path: Path) -> None:
    """The fork waits for the read, and the thread for nothing."""
    with OtherProcess() as process:
        assert process.call(fork_while_garbage_is_read_beside, path) == 0


@needs_fork
@forks
def test_handler_forks_in_the_midst_of_a_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child says so while the read is unfinished, finishes it, and can then read."""
    store = storage_impl.open_store(path)
    child = -1

    def fork() -> None:
        nonlocal child
        child = os.fork()
        if child == 0:
            with pytest.raises(storage_impl.ReadFailedError, match="after the handler"):
                store.read_one(3)

    in_transaction(monkeypatch, fork)
    image, _ = store.read_one(5)
    right = np.array_equal(image, images_of(COUNT)[5])
    if child == 0:
        try:
            check(store)
            store.close()
            os._exit(0 if right and is_closed(path) else 1)
        finally:
            os._exit(9)
    assert right
    check(store)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.close()
    assert is_closed(path)


@needs_fork
@forks
def test_child_leaves_the_slots_of_its_parent(path: Path) -> None:
    """What a child closes frees nothing that protects a reader of the parent from a writer."""
    with storage_impl.open_store(path) as store:
        check(store)
        assert processes.read_in_a_fork(store) == 0
        with storage_impl.open_store(path, "a") as writer:
            for first in range(COUNT, COUNT + 50, 5):
                writer.write_many(images_of(5, first=first), labels_of(5, first))
                assert processes.read_in_a_fork(store) == 0
                check(store)


# -- checking beside reading ---------------------------------------------------------------------


def test_verify_stalls_no_reader(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads read while the pages are checked."""
    checked = 0
    check_pages = _lmdb_environment.check_pages

    def slow(*arguments: Any) -> None:
        nonlocal checked
        thread = threading.Thread(target=reader.read_one, args=(5,))
        thread.start()
        thread.join(LIMIT)
        assert not thread.is_alive()
        checked += 1
        check_pages(*arguments)

    with storage_impl.open_store(path) as reader, storage_impl.open_store(path) as store:
        monkeypatch.setattr(_lmdb_environment, "check_pages", slow)
        store.verify()
        reader.verify()
    assert checked == 2


# -- errors that are no damage -------------------------------------------------------------------


def hold_readers(path: Path, count: int) -> None:
    """Take slots of readers as idle processes do."""
    env = lmdb.open(os.fsencode(path), readonly=True, max_spare_txns=0)
    _kept.extend((env, [env.begin() for _ in range(count)]))


def test_no_slot_for_a_reader(
    path: Path, other: OtherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All slots taken is said as such, at opening and at reading."""
    (path / "lock.mdb").unlink()
    monkeypatch.setattr(_lmdb_environment, "_READERS", 3)
    monkeypatch.setattr(_lmdb_environment, "_LOCK_FILE_BYTES", 0)
    with storage_impl.open_store(path) as store:
        other.call(hold_readers, path, 2)
        store.read_one(5)
        with pytest.raises(storage_impl.ReadFailedError, match="slots.*close") as caught:
            with_another_read(store, store.read_one)
        assert caught.value.errno == errno.EAGAIN
    other.call(hold_readers_more, 1)
    with pytest.raises(storage_impl.ReadFailedError, match="slots.*close"):
        storage_impl.open_store(path)


def hold_readers_more(count: int) -> None:
    """Take further slots in the environment that is open."""
    _kept.append([_kept[0].begin() for _ in range(count)])


def with_another_read(store: ImageStore, read: Callable[[int], object]) -> None:
    """Read in the midst of another read, which needs a slot of its own."""
    backend = store._backend
    assert isinstance(backend, LmdbBackend)
    backend._env.run(lambda txn, databases: read(5))


def test_environment_that_is_open_elsewhere_in_the_process(path: Path) -> None:
    """LMDB allows one environment a process: the user's own is in the way, and no damage."""
    with lmdb.open(os.fsencode(path), create=False):
        with pytest.raises(storage_impl.ReadFailedError, match=r"already open.*[Cc]lose"):
            storage_impl.open_store(path)
    storage_impl.open_store(path).close()


@pytest.mark.skipif(not hasattr(os, "fstatvfs"), reason="the system does not tell what is free")
@pytest.mark.parametrize(("free", "kind"), [(3, "StoreFullError"), (10**9, "WriteFailedError")])
def test_disk_that_takes_a_part_of_a_write(
    path: Path, monkeypatch: pytest.MonkeyPatch, free: int, kind: str
) -> None:
    """LMDB says I/O error where the disk is full; the store looks what is free."""

    class Status:
        f_bavail, f_frsize = free, 4096

    message = f"mdb_txn_commit: {os.strerror(errno.EIO)}"
    with storage_impl.open_store(path, "a") as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstatvfs", lambda descriptor: Status)
            patch.setattr(LmdbBackend, "_put", raising.failing(lmdb.Error(message)))
            with pytest.raises(storage_impl.WriteFailedError, match="as it was") as caught:
                store.write_many(images_of(2), [1, 2])
        assert type(caught.value).__name__ == kind
        assert ("free some space" in str(caught.value)) == (kind == "StoreFullError")
        store.write_many(images_of(2, first=COUNT), labels_of(2, COUNT))
        check(store, COUNT + 2)


def read_and_append(path: Path) -> list[str]:
    """As a user without rights: read a store, and the error of appending to it."""
    with storage_impl.open_store(path) as store:
        check(store)  # while what it imports can be read
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    with storage_impl.open_store(path) as store:
        check(store)
        store.verify()
    try:
        storage_impl.open_store(path, "a").close()
    except storage_impl.StorageError as error:
        return [type(error).__name__, str(error)]
    return []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights")
def test_lock_file_of_another_user(path: Path) -> None:
    """All that may be read is read, though not all may be written that belongs to the store."""
    # The directories that pytest makes are closed to other users.
    with tempfile.TemporaryDirectory() as directory:
        copy = shutil.copytree(path, Path(directory) / "store")
        for entry in (Path(directory), copy):
            entry.chmod(0o777)
        for file in copy.iterdir():
            file.chmod(0o666)
        (copy / "lock.mdb").chmod(0o444)
        with OtherProcess() as nobody:
            kind, message = nobody.call(read_and_append, copy)
    assert kind == "ReadFailedError"
    assert "lock.mdb" in message


def test_data_file_replaced(path: Path) -> None:
    """A reader keeps the file that it opened, or says that it is another."""
    other = path.with_name("other")
    with storage_impl.create_store(other, "lmdb", image_shape=SHAPE) as store:
        store.write_many(images_of(COUNT, first=100), labels_of(COUNT, 100))
    with storage_impl.open_store(path) as reader:
        check(reader)
        os.replace(other / "data.mdb", path / "data.mdb")
        check(reader)
        if hasattr(os, "fork"):
            child = os.fork()
            if child == 0:
                try:
                    with pytest.raises(storage_impl.ReadFailedError, match="replaced"):
                        reader.read_one(5)
                    os._exit(0)
                finally:
                    os._exit(9)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- pages ---------------------------------------------------------------------------------------


PAGE = 4096


class Pages:
    """The pages of a data file, to be damaged by hand."""

    def __init__(self, path: Path) -> None:
        self._file = path / "data.mdb"
        self.data = bytearray(self._file.read_bytes())
        with open(self._file, "rb") as file:
            metas = _lmdb_pages.read_metas(file.fileno())
        self.meta = max(metas, key=lambda meta: meta.transaction)

    def named(self, name: bytes) -> tuple[int, int]:
        """Depth and root page of a named database."""
        place = self.data.index(name, self.meta.main.root * PAGE) + len(name)
        _, _, depth, _, _, _, _, root = struct.unpack_from("<IHHQQQQQ", self.data, place)
        return depth, root

    def node(self, page: int, number: int) -> int:
        """Where a node begins in the file."""
        (offset,) = struct.unpack_from("<H", self.data, page * PAGE + 16 + 2 * number)
        return page * PAGE + int(offset)

    def save(self) -> None:
        self._file.write_bytes(self.data)


def pointer_out_of_the_file(pages: Pages) -> None:
    """The first image's own page, or a page below the root, is none of the file."""
    depth, root = pages.named(b"images")
    assert depth == 2
    struct.pack_into("<I", pages.data, pages.node(root, 0), 0x7FFFFFFF)


def value_out_of_the_file(pages: Pages) -> None:
    """The pages of an image's own lie beyond the file."""
    leaf = leaf_of(pages)
    struct.pack_into("<Q", pages.data, pages.node(leaf, 0) + 16, 1 << 40)


def node_out_of_its_page(pages: Pages) -> None:
    """A node begins at the last bytes of its page."""
    struct.pack_into("<H", pages.data, leaf_of(pages) * PAGE + 16, PAGE - 4)


def record_out_of_its_page(pages: Pages) -> None:
    """A record in its page is longer than the page."""
    _, root = pages.named(b"labels")
    struct.pack_into("<HH", pages.data, pages.node(root, 0), 0xFFFF, 0)
    struct.pack_into("<H", pages.data, pages.node(root, 0) + 4, 0)


def page_used_twice(pages: Pages) -> None:
    """Two images share a page of their own."""
    leaf = leaf_of(pages)
    first, second = (pages.node(leaf, number) + 16 for number in range(2))
    pages.data[second : second + 8] = pages.data[first : first + 8]


def loop(pages: Pages) -> None:
    """A page lies below itself."""
    _, root = pages.named(b"images")
    struct.pack_into("<I", pages.data, pages.node(root, 0), root)


def free_page_in_use(pages: Pages) -> None:
    """The free list names a page of an image, which the next write would overwrite."""
    leaf = leaf_of(pages)
    used = pages.data[pages.node(leaf, 0) + 16 :][:8]
    free = pages.meta.free
    assert free.depth == 1
    place = pages.node(free.root, 0) + 16
    assert struct.unpack_from("<Q", pages.data, place)[0] >= 1
    pages.data[place + 8 : place + 16] = used


def leaf_of(pages: Pages) -> int:
    """The first leaf page of the images."""
    _, root = pages.named(b"images")
    low, high, flags = struct.unpack_from("<HHH", pages.data, pages.node(root, 0))
    return int(low | high << 16 | flags << 32)


DAMAGE: list[Callable[[Pages], None]] = [
    pointer_out_of_the_file,
    value_out_of_the_file,
    node_out_of_its_page,
    record_out_of_its_page,
    page_used_twice,
    loop,
    free_page_in_use,
]


@pytest.fixture(scope="module")
def branched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of images with pages of their own, below a branch page."""
    path = tmp_path_factory.mktemp("branched") / "store"
    shape = (32, 32, 3)
    with storage_impl.create_store(path, "lmdb", image_shape=shape, durable=False) as store:
        for first in (0, 300):
            store.write_many(images_of(300, shape, first), labels_of(300, first))
    return path


@pytest.mark.skipif(sys.byteorder != "little", reason="pages are in the machine's order")
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damaged_page(branched: Path, tmp_path: Path, damage: Callable[[Pages], None]) -> None:
    """Where it would lead LMDB astray it is refused before LMDB follows it."""
    path = shutil.copytree(branched, tmp_path / "store")
    pages = Pages(path)
    pages.save()
    storage_impl.open_store(path, verify=True).close()
    damage(pages)
    pages.save()
    for mode in ("r", "a"):
        with pytest.raises(storage_impl.DamagedStoreError, match=r"data\.mdb is damaged"):
            storage_impl.open_store(path, mode, verify=True)
    with storage_impl.open_store(path) as store:
        with pytest.raises(storage_impl.DamagedStoreError, match=r"data\.mdb is damaged"):
            store.verify()


# -- the file of locks ---------------------------------------------------------------------------


def test_lock_file_has_no_holes(path: Path) -> None:
    """LMDB writes to it by a map, which on a full disk is a signal where there is a hole."""
    status = (path / "lock.mdb").stat()
    assert status.st_size >= _lmdb_environment._LOCK_FILE_BYTES
    if hasattr(status, "st_blocks"):
        assert status.st_blocks * 512 >= status.st_size


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    """A file system that writes nothing where it was; to mount one takes the right to."""
    image, mounted = tmp_path / "image", tmp_path / "btrfs"
    image.touch()
    os.truncate(image, 120 << 20)
    mounted.mkdir()
    make = shutil.which("mkfs.btrfs")
    if make is None or os.geteuid() != 0:
        pytest.skip("needs mkfs.btrfs and root")
    subprocess.run([make, "-q", image], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", image, mounted], capture_output=True).returncode:
        pytest.skip("this system mounts no btrfs")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def open_where_it_is_full(path: Path, mode: str) -> str:
    """Open a store, read it, and append to it: what came of it."""
    try:
        with storage_impl.open_store(path, mode) as store:
            check(store)
            if mode == "a":
                store.write_many(images_of(20_000, first=COUNT), labels_of(20_000, COUNT))
    except storage_impl.StorageError as error:
        return type(error).__name__
    return "done"


@needs_proc
def test_full_btrfs(btrfs: Path, path: Path) -> None:
    """Where each write takes new blocks, and there are none, LMDB's locks need none."""
    store = shutil.copytree(path, btrfs / "store", ignore=lambda *_: ["lock.mdb"])
    storage_impl.open_store(store).close()
    for size in (1 << 24, 1 << 20, 1 << 12):
        with open(btrfs / f"of {size}", "wb") as file, contextlib.suppress(OSError):
            for start in range(0, 1 << 30, size):
                os.posix_fallocate(file.fileno(), start, size)
    os.sync()
    with OtherProcess() as other:
        assert other.call(open_where_it_is_full, store, "r") == "done"
        assert other.call(open_where_it_is_full, store, "a") == "StoreFullError"
    for file in btrfs.glob("of *"):
        file.unlink()
    with storage_impl.open_store(store, "a", verify=True) as writer:
        check(writer)


@needs_proc
def test_map_takes_no_memory(path: Path) -> None:
    """Addresses are reserved for a terabyte; what is read of it is what costs."""
    with storage_impl.open_store(path) as store:
        check(store)
        status = Path("/proc/self/statm").read_text().split()
        assert int(status[1]) * os.sysconf("SC_PAGE_SIZE") < 1 << 30
