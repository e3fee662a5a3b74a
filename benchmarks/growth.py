"""What does it cost to append to a store, and how many bytes are written for an image?"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import storage_impl
from benchmarks.common import BACKENDS, StoreSuite, compare, discard, facts, version


class Append(StoreSuite):
    """`write_many` of 1,000 images to an open store that holds `held` images; not synced."""

    params = (BACKENDS, (0, 10_000))
    param_names = ("backend", "held")
    version = version(1)

    def prepare(self, backend: str, held: int) -> None:
        """Open a store of `held` images."""
        if held:
            path = self.scratch / "store"
            shutil.copytree(self.stored(backend), path, copy_function=_link)
            self.store = storage_impl.open_store(path, "a")
            self.undo.callback(discard, self.store)
        else:
            self.store = self.new_store(backend)

    def check(self, backend: str, held: int) -> None:
        """Raise RuntimeError unless the store holds the earlier and the appended images."""
        before = len(self.store)
        self.time_append_1000(backend, held)
        with storage_impl.open_store(self.store.path) as reader:
            images, labels = reader.read_many()
        compare(images, np.concatenate([self.images[:before], self.images[:1_000]]))
        compare(labels, np.concatenate([self.labels[:before], self.labels[:1_000]]))

    @facts(images=1_000)
    def time_append_1000(self, backend: str, held: int) -> None:
        """Append 1,000 images."""
        self.store.write_many(self.images[:1_000], self.labels[:1_000])


def _link(source: str, target: str) -> None:
    """Copy a file of a store; a file that is never written again gets a second name instead."""
    if Path(source).suffix in (".png", ".h5"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


class InSteps(StoreSuite):
    """`write_many` of 10,000 images in ten calls, into an empty, open store; not synced.

    `many_images.WriteMany` does the same in one call.
    """

    params = (BACKENDS,)
    param_names = ("backend",)
    version = version(1)

    def prepare(self, backend: str) -> None:
        """Open an empty store."""
        self.store = self.new_store(backend)
        self.step = len(self.images) // 10

    def check(self, backend: str) -> None:
        """Raise RuntimeError unless the store holds what was written."""
        self.time_write_10000(backend)
        self.compare(self.store)

    @facts(images=10_000)
    def time_write_10000(self, backend: str) -> None:
        """Write a tenth of the images, ten times."""
        for start in range(0, len(self.images), self.step):
            here = slice(start, start + self.step)
            self.store.write_many(self.images[here], self.labels[here])


class WriteAmplification(StoreSuite):
    """Bytes that a durable store sends to the disk for each byte of pixels and labels.

    They are the `write_bytes` of /proc/self/io, from the first write to the end of `close`. These
    count whole pages of files that the process changed, and count a page again each time it is
    changed and synced. They do not count what the file system writes for itself (its journal,
    inodes and directories), nor what the disk makes of all writes. There is no figure if the
    system or the file system does not count these bytes.
    """

    params = (BACKENDS, ("one call", "1,000 by 1,000", "one by one"))
    param_names = ("backend", "calls")
    unit = "written/given"
    version = version(1)

    def amount(self, **parameters: Any) -> tuple[int, int]:
        """Return fewer images if each is written by a call of its own."""
        return 200 if parameters["calls"] == "one by one" else 3_000, 32

    def prepare(self, backend: str, calls: str) -> None:
        """Write the images, count the bytes sent, and check the store."""
        if not self.first:
            return
        store = self.new_store(backend, durable=True)
        before = bytes_sent()
        if calls == "one by one":
            for image, label in zip(self.images, self.labels, strict=True):
                store.write_one(image, label)
        else:
            step = len(self.images) if calls == "one call" else 1_000
            for start in range(0, len(self.images), step):
                here = slice(start, start + step)
                store.write_many(self.images[here], self.labels[here])
        store.close()
        self.sent = bytes_sent() - before
        self.compare(store)
        if self.sent == 0:
            raise NotImplementedError("needs a file system that counts the bytes written")

    def track_written(self, backend: str, calls: str) -> float:
        """Return the bytes written divided by the bytes given."""
        return self.sent / (self.images.nbytes + self.labels.nbytes)


def bytes_sent(counters: Path = Path("/proc/self/io")) -> int:
    """Return the bytes that this process has sent to the disk so far.

    Raises
    ------
    NotImplementedError
        The system does not count them.
    """
    try:
        lines = counters.read_text().splitlines()
    except OSError as error:
        raise NotImplementedError("needs /proc/self/io") from error
    return int(dict(line.split(": ") for line in lines)["write_bytes"])
