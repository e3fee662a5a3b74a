"""What does an image cost in the order in which training asks for it, and what do labels alone?"""

from benchmarks.common import BACKENDS, StoreSuite, compare, version


class ShuffledBatches(StoreSuite):
    """Every one of 10,000 images once, in shuffled batches of 256."""

    params = (BACKENDS, (10_000,))
    warmup_time = 0.1
    version = version(1)

    def setup(self, backend: str, count: int) -> None:
        """Open a store; once in a process, look at what the batches hold."""
        self.begin(count)
        self.store = self.warm_store(backend)
        if self.first:
            batches = list(self.store.batches(256, shuffle=7))
            compare(sum(labels.sum() for _, labels in batches), self.labels.sum())
            compare(sum(images.sum() for images, _ in batches), self.images.sum())

    def time_batches(self, backend: str, count: int) -> None:
        """Read all batches."""
        for _ in self.store.batches(256, shuffle=7):
            pass


class ReadLabels(StoreSuite):
    """`read_labels` of everything, which touches no image."""

    warmup_time = 0.1
    version = version(1)

    def setup(self, backend: str, count: int) -> None:
        """Open a store of `count` images; once in a process, look at its labels."""
        self.begin(count)
        self.store = self.warm_store(backend)
        if self.first:
            compare(self.store.read_labels(), self.labels)

    def time_read(self, backend: str, count: int) -> None:
        """Read `count` labels."""
        self.store.read_labels()
