"""What every backend promises when it is interrupted, forked, moved, copied or attacked.

A part of the contract: `tests.contract` has the rest, and the hooks that these tests use.
"""

import contextlib
import gc
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import storage_impl
from storage_impl import ImageStore
from tests import lines
from tests.contract import COUNT, StoreContract, forks, needs_fork
from tests.samples import labels_of

READS: dict[str, Callable[[ImageStore], object]] = {
    "read_one": lambda store: store.read_one(5),
    "read_many": lambda store: store.read_many(),
    "shuffled": lambda store: store.read_many([7, 3, 11]),
    "read_labels": lambda store: store.read_labels(),
    "verify": lambda store: store.verify(),
}
dir_fds = pytest.mark.skipif(
    os.open not in os.supports_dir_fd, reason="this system opens nothing from a descriptor"
)


class FaultContract(StoreContract):
    """The promises that are about bad moments."""

    lines_a_fork = 3  # of a read, in the short form

    # -- interrupts ----------------------------------------------------------------------------

    @pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError, RecursionError])
    def test_write_interrupted_at_any_line(
        self, stored: Path, error: type[BaseException], small_chunks: None
    ) -> None:
        """What a signal's handler raises comes out as it is; the store holds whole calls."""

        def interrupt() -> None:
            raise error("the caller's own")

        held = COUNT
        with storage_impl.open_store(stored, "a") as store:
            for number in lines.numbers(step=9 if error is KeyboardInterrupt else 37):
                new = self.images_of(12, first=held)
                reached = True
                with passing_through(error):
                    reached = lines.at_line(
                        number, interrupt, lambda new=new: store.write_many(iter(new), range(12))
                    )
                length = len(store)
                assert length in (held, held + 12)
                with storage_impl.open_store(stored) as reader:
                    # What a call left that was interrupted as it ended is taken back by the next.
                    assert len(reader) in (held, held + 12)
                if length > held or not reached:
                    held = length
                if not reached:
                    break
            np.testing.assert_array_equal(store.read_many()[0], self.images_of(held))
            store.verify()
        with storage_impl.open_store(stored, verify=True) as store:
            assert len(store) == held
            np.testing.assert_array_equal(store.read_many()[0], self.images_of(held))
        assert self.leftovers(stored) == []

    def test_store_left_by_an_interrupted_write(self, stored: Path) -> None:
        """`with` closes the store, whatever line was interrupted, and the interrupt comes out."""

        def interrupt() -> None:
            raise KeyboardInterrupt("the caller's own")

        def write(store: ImageStore) -> object:
            return store.write_one(self.images_of(1)[0], 0)

        with storage_impl.open_store(stored, "a") as store:
            length = lines.count(lambda: write(store))
        # All of the last lines, which take back what marks a write in progress.
        some = itertools.takewhile(lambda number: number < length - 15, lines.numbers(step=37))
        for number in (*some, *range(length - 15, length)):
            with (
                passing_through(KeyboardInterrupt),
                storage_impl.open_store(stored, "a") as store,
            ):
                lines.at_line(number, interrupt, lambda store=store: write(store))
            assert store.closed
            storage_impl.open_store(stored, "a").close()  # the lock is free

    def test_written_to_at_any_line_of_a_write(self, stored: Path) -> None:
        """A handler's write is refused, or takes place wholly before or after the other."""
        images = self.images_of(2)
        with storage_impl.open_store(stored, "a") as store:
            for number in lines.numbers(step=4):
                held = len(store)
                placed: list[int] = []

                def handle(placed: list[int] = placed) -> None:
                    with contextlib.suppress(storage_impl.InvalidInputError):
                        placed.append(store.write_one(images[1], 1))

                def write(placed: list[int] = placed) -> None:
                    placed.insert(0, store.write_one(images[0], 0))

                reached = lines.at_line(number, handle, write)
                assert sorted(placed) == list(range(held, len(store)))
                found, labels = store.read_many(placed)
                np.testing.assert_array_equal(found, images[: len(placed)])
                assert labels.tolist() == [0, 1][: len(placed)]
                if not reached:
                    break
            store.verify()

    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize("error", [TimeoutError, RecursionError])
    def test_read_interrupted_at_any_line(
        self, shared: Path, read: str, error: type[Exception]
    ) -> None:
        """It is no damage, whatever built-in error the handler chose, and the next read works."""

        def interrupt() -> None:
            raise error("the caller's own")

        with storage_impl.open_store(shared, verify=True) as store:
            for number in lines.numbers(step=23):
                reached = True
                with passing_through(error):
                    reached = lines.at_line(number, interrupt, lambda: READS[read](store))
                if not reached:
                    break
            np.testing.assert_array_equal(store.read_many()[0], self.images_of(COUNT))

    @pytest.mark.parametrize("read", READS)
    def test_closed_at_any_line_of_a_read(self, shared: Path, tmp_path: Path, read: str) -> None:
        """A read that a handler's `close` overtakes is right or refused, and waits for nothing.

        The descriptors that closing frees are at once given to other files.
        """
        decoy = tmp_path / "decoy"
        decoy.write_bytes(b"\xab" * 10_000)
        for number in lines.numbers(step=17):
            store = storage_impl.open_store(shared)
            expected = READS[read](store)
            others: list[int] = []

            def close(store: ImageStore = store, others: list[int] = others) -> None:
                store.close()
                others.extend(os.open(decoy, os.O_RDONLY) for _ in range(8))

            found: list[Any] = []
            reached = True
            try:
                reached = lines.at_line(
                    number,
                    close,
                    lambda store=store, found=found: found.append(READS[read](store)),
                )
            except storage_impl.ClosedStoreError:
                pass
            finally:
                for other in others:
                    os.close(other)
            if found:
                same(found[0], expected)
            store.close()
            if not reached:
                break

    # -- forks ---------------------------------------------------------------------------------

    @needs_fork
    @forks
    @pytest.mark.parametrize("child", ["exits", "goes on", "raises"])
    def test_generator_whose_child_goes_on(
        self, stored: Path, tmp_path: Path, small_chunks: None, child: str
    ) -> None:
        """Only the process that began a write finishes or undoes it."""
        others = tmp_path / "others"
        others.write_bytes(b"\xab" * 200)
        in_child = False

        def forking() -> Iterator[NDArray[np.uint8]]:
            nonlocal in_child
            yield from self.images_of(12, first=COUNT)
            process = os.fork()
            if process:
                assert os.waitpid(process, 0)[1] == 0
            else:
                in_child = True
                # In the place of whatever the child has closed.
                opened.extend(os.open(others, os.O_RDWR) for _ in range(16))
                if child == "exits":
                    sys.exit()
                if child == "raises":
                    raise ZeroDivisionError
            yield from self.images_of(12, first=COUNT + 12)

        opened: list[int] = []
        with storage_impl.open_store(stored, "a") as store:
            try:
                store.write_many(forking(), labels_of(24, COUNT))
            except BaseException as error:
                if in_child:
                    store.close()
                    expected = {
                        "exits": SystemExit,
                        "raises": ZeroDivisionError,
                        "goes on": storage_impl.ReadOnlyStoreError,
                    }
                    os._exit(type(error) is not expected[child])
                raise
            finally:
                if in_child:
                    os._exit(9)
        assert others.read_bytes() == b"\xab" * 200
        self.check(stored, COUNT + 24)

    @needs_fork
    @forks
    def test_fork_in_a_handler_in_the_midst_of_a_read(self, shared: Path) -> None:
        """A handler may fork wherever it interrupts a read: neither side hangs or reads amiss."""
        expected = self.images_of(COUNT)[[7, 3, 11]], labels_of(COUNT)[[7, 3, 11]]
        # A read that an earlier test interrupted counts as one in progress while its traceback is
        # kept, and a cycle can keep it.
        gc.collect()
        with storage_impl.open_store(shared) as store:
            for number in lines.numbers(step=self.lines_a_fork):
                found: list[Any] = []
                child: list[int] = []

                def fork(child: list[int] = child) -> None:
                    child.append(os.fork())
                    if child != [0]:  # the child reads on first
                        child.append(os.waitpid(child[0], 0)[1])

                try:
                    reached = lines.at_line(
                        number, fork, lambda found=found: found.append(store.read_many([7, 3, 11]))
                    )
                    same(found[0], expected)
                    if child == [0]:
                        same(store.read_many([7, 3, 11]), expected)
                        os._exit(0)
                finally:
                    if child == [0]:  # which must not go on as another run of the tests
                        os._exit(9)
                assert child[1:] in ([], [0])
                if not reached:
                    break

    # -- the directory is moved, copied, attacked ------------------------------------------------

    @dir_fds
    @pytest.mark.parametrize("used", [False, True], ids=["unread", "read"])
    def test_another_store_in_its_place(self, stored: Path, used: bool) -> None:
        """A reader keeps the store that it opened, wherever it is moved, or says so."""
        other = stored.with_name("other")
        with self.create(other) as store:
            store.write_many(self.images_of(COUNT, first=100), labels_of(COUNT, 100))
        with storage_impl.open_store(stored) as reader:
            if used:
                reader.read_one(0)
            stored.rename(stored.with_name("away"))
            other.rename(stored)
            readings = [lambda: reader.read_many(), lambda: reader.read_many([5, 2])]
            for read, which in zip(readings, (slice(None), [5, 2]), strict=True):
                images, labels = read()
                np.testing.assert_array_equal(images, self.images_of(COUNT)[which])
                np.testing.assert_array_equal(labels, labels_of(COUNT)[which])
            np.testing.assert_array_equal(reader.read_labels(), labels_of(COUNT))
            reader.verify()
            with pytest.raises(storage_impl.StoreNotFoundError, match="moved"):
                reader.disk_usage()

    @dir_fds
    @needs_fork
    @forks
    def test_another_store_in_its_place_after_a_fork(self, stored: Path) -> None:
        """A child reads what its parent opened."""
        other = stored.with_name("other")
        with self.create(other) as store:
            store.write_many(self.images_of(COUNT, first=100), labels_of(COUNT, 100))
        with storage_impl.open_store(stored) as reader:
            reader.read_one(0)
            stored.rename(stored.with_name("away"))
            other.rename(stored)
            process = os.fork()
            if process == 0:
                try:
                    with contextlib.suppress(storage_impl.StorageError):
                        same(reader.read_many(), (self.images_of(COUNT), labels_of(COUNT)))
                    os._exit(0)
                finally:
                    os._exit(9)
            assert os.waitpid(process, 0)[1] == 0

    def test_copy_made_while_it_is_open_for_writing(self, stored: Path, path: Path) -> None:
        """Such a copy may hold parts of different moments: it is refused until it is checked."""
        copy = stored.with_name("copy")
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(self.images_of(3, first=COUNT), labels_of(3, COUNT))
            shutil.copytree(stored, copy)
            with storage_impl.open_store(stored) as reader:  # the original is what it is
                assert len(reader) == COUNT + 3
        for mode in ("r", "a"):
            with pytest.raises(storage_impl.DamagedStoreError, match="copied"):
                storage_impl.open_store(copy, mode)
        with storage_impl.open_store(copy, verify=True) as whole:
            self.check_prefix(whole, COUNT + 3)
        with storage_impl.open_store(copy, "a", verify=True) as whole:
            whole.write_many(self.images_of(2, first=COUNT + 3), labels_of(2, COUNT + 3))
        self.check(copy, COUNT + 5)
        shutil.copytree(stored, path.with_name("later"))
        self.check(path.with_name("later"), COUNT + 3)

    @pytest.mark.parametrize("rest", [b"writing to dir", b"writing to directory 12", bytes(42)])
    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_lock_of_a_writer_that_was_killed(self, stored: Path, mode: str, rest: bytes) -> None:
        """What a kill or a power cut left of the writer's mark makes no copy of the store."""
        (stored / "write.lock").write_bytes(rest)
        with storage_impl.open_store(stored, mode) as store:
            self.check_prefix(store, COUNT)

    def test_copy_of_different_moments_is_not_accepted(self, stored: Path) -> None:
        """Opened with ``verify=True`` a copy is checked before anything is appended to it."""
        copy = stored.with_name("copy")
        with storage_impl.open_store(stored, "a"):
            shutil.copytree(stored, copy)
        self.damage_pixel(copy, 4)
        with pytest.raises(storage_impl.DamagedStoreError):
            storage_impl.open_store(copy, "a", verify=True)

    @dir_fds
    def test_directories_swapped_for_links_at_any_line(self, stored: Path) -> None:
        """A link in the place of a directory, put there between check and use, leads nowhere."""
        strangers = stored.with_name("strangers")
        inner = [entry.name for entry in stored.iterdir() if entry.is_dir()]
        if not inner:
            pytest.skip("the backend has no directories in its store")
        for name in inner:
            for number in lines.numbers(step=41):
                shutil.rmtree(strangers, ignore_errors=True)
                shutil.copytree(stored / name, strangers)
                before = sorted(str(file) for file in strangers.rglob("*"))
                copy = Path(shutil.copytree(stored, stored.with_name("attacked")))

                def swap(copy: Path = copy, name: str = name) -> None:
                    (copy / name).rename(copy / "kept")
                    (copy / name).symlink_to(strangers)

                def use(copy: Path = copy) -> None:
                    with contextlib.suppress(storage_impl.StorageError):
                        with storage_impl.open_store(copy, "a") as store:
                            store.write_many(self.images_of(3, first=COUNT), labels_of(3, COUNT))
                            store.read_many()

                reached = lines.at_line(number, swap, use)
                assert sorted(str(file) for file in strangers.rglob("*")) == before
                shutil.rmtree(copy)
                if not reached:
                    break

    # -- two creators --------------------------------------------------------------------------

    def test_created_twice_at_any_line(self, path: Path) -> None:
        """Of two creations, one in the midst of the other, one succeeds and the other is told."""
        for number in lines.numbers(step=3):
            outcomes: list[str] = []

            def create(outcomes: list[str] = outcomes) -> None:
                try:
                    self.create(path).close()
                except storage_impl.StorageError as error:
                    outcomes.append(type(error).__name__)
                else:
                    outcomes.append("created")

            reached = lines.at_line(number, create, create)
            assert sorted(outcomes) == (["StoreExistsError", "created"] if reached else ["created"])
            self.check(path, 0)
            assert os.listdir(path.parent) == [path.name]
            if not reached:
                break
            shutil.rmtree(path)

    # -- names and numbers ---------------------------------------------------------------------

    def test_read_only_file_system(self, stored: Path, tmp_path: Path) -> None:
        """What is mounted for reading alone is read, and nobody calls it damaged."""
        mounted = tmp_path / "mounted"
        mounted.mkdir()
        mount = ["mount", "-t", "tmpfs", "none", str(mounted)]
        if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("nothing can be mounted here: that takes Linux and root")
        try:
            store = shutil.copytree(stored, mounted / "store")
            storage_impl.open_store(store).close()
            again = ["mount", "-o", "remount,ro", str(mounted)]
            subprocess.run(again, check=True, capture_output=True)
            with storage_impl.open_store(store, verify=True) as opened:
                np.testing.assert_array_equal(opened.read_many()[0], self.images_of(COUNT))
            with pytest.raises(storage_impl.StorageError, match="[Rr]ead-only") as caught:
                storage_impl.open_store(store, "a")
            assert not isinstance(caught.value, storage_impl.DamagedStoreError)
        finally:
            subprocess.run(["umount", "-l", str(mounted)], check=True)

    @pytest.mark.parametrize("name", ["n" * 255, "ü" * 127], ids=["255 letters", "254 bytes"])
    def test_long_names(self, tmp_path: Path, name: str) -> None:
        """A store may have the longest name that a directory may have."""
        self.create(tmp_path / name).close()
        self.check(tmp_path / name, 0)

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names here are Unicode")
    def test_name_that_is_no_text(self, tmp_path: Path) -> None:
        """Neither need its name, nor that of a directory above it, be valid UTF-8."""
        parent = tmp_path / os.fsdecode(b"\xff\xfe")
        parent.mkdir()
        with self.create(parent / "store") as store:
            store.write_many(self.images_of(3), labels_of(3))
        self.check(parent / "store", 3)

    def test_paths_that_cannot_be(self, tmp_path: Path) -> None:
        """They are refused by an error of this package."""
        for use in (self.create, storage_impl.open_store):
            with pytest.raises(storage_impl.StorageError, match="NUL"):
                use(f"{tmp_path}/a\0b")

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no directory in use")
    def test_working_directory_that_is_gone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A relative path then leads nowhere."""
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        for use in (self.create, storage_impl.open_store):
            with pytest.raises(storage_impl.StoreNotFoundError, match="gone"):
                use("store")

    def test_range_beyond_all_numbers(self, reader: ImageStore) -> None:
        """A range too long for the machine is a bad index like any other."""
        for method in (reader.read_many, reader.read_labels):
            with pytest.raises(storage_impl.InvalidIndexError):
                method(range(10**30))  # type: ignore[operator]


@contextlib.contextmanager
def passing_through(error: type[BaseException]) -> Iterator[None]:
    """Expect an error of the caller's own, if any: unchanged, and no other."""
    try:
        yield
    except error as raised:
        if raised.args != ("the caller's own",):
            raise


def same(found: Any, expected: Any) -> None:
    """Fail unless what was read twice is the same."""
    if not isinstance(expected, tuple):
        found, expected = (found,), (expected,)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
