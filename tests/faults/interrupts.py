"""Writes that SIGINT interrupts, in a process of its own: run as a program by `test_interrupts`.

    python -m tests.faults.interrupts DIRECTORY BACKEND OPTIONS WRITES SEED

Prints what went wrong, a line each, and at the end how many writes were interrupted.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import storage_impl
from storage_impl import ImageStore
from tests.samples import labels_of

from .workload import Variant, same

SHAPE = (64, 64, 3)
IMAGES = 8  # a write
RENEWED = 40  # writes to a store, before it is looked at and another one made


def main(directory: Path, backend: str, options: str, writes: int, seed: int) -> None:
    """Write, with an interrupt at a random time of each write, and look at what is there."""
    variant = Variant(SHAPE, json.loads(options))
    chance = random.Random(seed)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupted = 0
    typical = 0.005  # seconds a write takes, as measured since
    for start in range(0, writes, RENEWED):
        path = directory / f"store{start}"
        store = variant.create(path, backend, durable=False)
        held = 0
        for _ in range(min(RENEWED, writes - start)):
            images, labels = variant.images(IMAGES, held), labels_of(IMAGES, held)
            begun = time.perf_counter()
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 1.2 * typical))
                store.write_many(images, labels)
                signal.setitimer(signal.ITIMER_REAL, 0)
                typical += (time.perf_counter() - begun - typical) / 20
            except KeyboardInterrupt:
                interrupted += 1
                typical *= 1.02  # else those that take longer than it are never finished
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if len(store) not in (held, held + IMAGES):
                print(f"{len(store)} images after {held} and a call of {IMAGES}")
            held = len(store)
        look_at(store, variant, held)
        store.close()
        with storage_impl.open_store(path, verify=True) as reader:
            look_at(reader, variant, held)
        shutil.rmtree(path)
    print(f"{interrupted} of {writes} interrupted")


def look_at(store: ImageStore, variant: Variant, held: int) -> None:
    """Print what differs from whole calls that follow each other."""
    try:
        store.verify()
        images, labels = store.read_many()
    except storage_impl.StorageError as error:
        print(f"{type(error).__name__}: {error}")
        return
    if len(labels) != held:
        print(f"{len(labels)} labels instead of {held}")
    elif not same(images, labels, variant):
        print("other images or labels than were written")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    sys.stdout.flush()
    os._exit(0)
