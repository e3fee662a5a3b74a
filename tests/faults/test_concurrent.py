"""Readers beside writers, all of them killed and started again: whole prefixes, right bytes."""

import mmap
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

import storage_impl

from .tally import FULL, SEED, Tally
from .tool import Server
from .workload import Variant, same

VARIANT = Variant((12, 12, 3), {})
CALL = 20  # images in one call
LARGEST = 2_000  # images: then the writers go on opening, without writing
IMAGES = 1_000_000 if FULL else 20_000  # to be read by processes, and half as many by threads
KILLS_EVERY = 5_000  # images read


def read_all(path: Path, variant: Variant, least: int) -> int:
    """Read a store whole, and return its length: at least `least`, and whole calls."""
    with storage_impl.open_store(path) as store:
        length = len(store)
        assert length >= least, f"{length} images where there were {least}"
        assert length % CALL == 0, f"{length} images from calls of {CALL}"
        images, labels = store.read_many()
        assert len(images) == length
        assert same(images, labels, variant), "wrong pixels or labels"
        return length


def append(path: Path, variant: Variant) -> bool:
    """Append the next sample images; False where another writer has the store."""
    try:
        with storage_impl.open_store(path, "a") as store:
            if len(store) < LARGEST:
                variant.write(store, CALL)
    except storage_impl.StoreLockedError:
        return False
    return True


def keep_reading(path: Path, variant: Variant, counter: Callable[[int], None]) -> None:
    """Read until killed; a store never gets shorter."""
    length = 0
    while True:
        length = read_all(path, variant, length)
        counter(length)


def keep_appending(path: Path, variant: Variant, counter: Callable[[int], None]) -> None:
    """Append until killed, and count the times when the other writer was in the way."""
    while True:
        if not append(path, variant):
            counter(1)


def contend(path: Path, backend: str, variant: Variant, target: int, seed: int) -> tuple[int, int]:
    """Run 2 writers and 4 readers as processes, killing one of them now and then.

    Returns
    -------
    tuple of int
        Images read, and how often a second writer was refused.
    """
    variant.create(path, backend).close()
    random_, ended = random.Random(seed), path.with_suffix(".ended")
    jobs = [keep_appending] * 2 + [keep_reading] * 4
    shared = np.frombuffer(mmap.mmap(-1, 8 * len(jobs)), np.uint64)

    def start(slot: int) -> int:
        child = os.fork()
        if child == 0:
            signal.setitimer(signal.ITIMER_REAL, 600)  # should its parent be killed
            try:
                jobs[slot](path, variant, lambda n: shared.__setitem__(slot, shared[slot] + n))
            finally:
                ended.write_text(f"{jobs[slot].__name__}: {traceback.format_exc()}")
                os._exit(1)
        return child

    children = {slot: start(slot) for slot in range(len(jobs))}
    next_kill = KILLS_EVERY
    try:
        while (images := int(shared[2:].sum())) < target:
            for slot, child in list(children.items()):
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    del children[slot]
                    raise AssertionError(ended.read_text() if ended.exists() else f"{status=}")
            if images >= next_kill:
                next_kill = images + random_.randrange(2 * KILLS_EVERY)
                slot = random_.randrange(len(jobs))
                os.kill(children[slot], signal.SIGKILL)
                os.waitpid(children[slot], 0)
                children[slot] = start(slot)
            time.sleep(0.001)
    finally:
        for child in children.values():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return images, int(shared[:2].sum())


def share(path: Path, backend: str, variant: Variant, target: int) -> int:
    """Run a writer and 4 readers as threads, and return how many images were read."""
    stop = threading.Event()
    counts, errors = [0] * 4, []

    def watched(job: Callable[[int], None]) -> Callable[[int], None]:
        def run(number: int) -> None:
            try:
                job(number)
            except BaseException:
                errors.append(traceback.format_exc())
                stop.set()

        return run

    def write(number: int) -> None:
        while not stop.is_set() and len(store) < LARGEST:
            variant.write(store, CALL)

    def read(number: int) -> None:
        length = 0
        while not stop.is_set() and sum(counts) < target:
            length = read_all(path, variant, length)
            counts[number] += length

    with variant.create(path, backend) as store:
        threads = [threading.Thread(target=watched(read), args=(n,)) for n in range(4)]
        threads.append(threading.Thread(target=watched(write), args=(0,)))
        for thread in threads:
            thread.start()
        for thread in threads[:4]:
            thread.join()
        stop.set()
        threads[4].join()
    assert not errors, errors[0]
    return sum(counts)


def test_processes(server: Server, scratch: Path, backend: str, tally: Tally) -> None:
    """No reader sees a wrong byte or half a call; a second writer is refused at once."""
    path = scratch / "store"
    outcome = server.run(contend, path, backend, VARIANT, IMAGES, SEED, seconds=600.0)
    if outcome.value is None:
        tally.add(str(outcome))
    else:
        images, refused = outcome.value
        tally.add(None, tried=images)
        assert refused > 0
    tally.check(at_least=IMAGES)


def test_threads(server: Server, scratch: Path, backend: str, tally: Tally) -> None:
    """The same for threads of one process, the writer among them."""
    outcome = server.run(share, scratch / "store", backend, VARIANT, IMAGES // 2, seconds=600.0)
    tally.add(None if outcome.value else str(outcome), tried=outcome.value or 1)
    tally.check(at_least=IMAGES // 2)
