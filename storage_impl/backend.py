"""The methods that a backend implements.

`storage_impl.store.ImageStore` checks arguments, encodes, decodes and verifies. It also ensures
that a write is all or nothing. A backend keeps records (`storage_impl._records`) in files.

Every backend follows two rules:

- It opens files only through the `Directory` that it was given. So it stays with that directory
  when the path is renamed, and follows no link.
- No method cleans up after itself when it fails or is interrupted. `discard` removes what it left
  behind. The store calls `discard` only in the process that began the write.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from storage_impl import codecs
from storage_impl._files import Directory
from storage_impl._marker import Marker, Options, OptionValue
from storage_impl._records import Places, Records, Shape

Wanted = range | NDArray[np.int64]
"""Which images: a range of step 1, or (n,) indices in any order, with repeats. All exist."""


class Backend(ABC):
    """The files of one store, open in this process.

    Parameters
    ----------
    directory : Directory
        The store's directory.
    marker : Marker
        The content of `store.json`, with all options.
    writable : bool
        Whether `append`, `discard` and `sync` may be called. The caller then holds the writer's
        lock.
    verify : bool
        Whether to check the structure of the files before it is used.

    Attributes
    ----------
    count : int
        Number of committed images, as of the opening or the last `append` or `discard`.

    Raises
    ------
    DamagedStoreError
        The files are not what was written, or end too early.
    """

    name: ClassVar[str]
    distribution: ClassVar[str]  # whose version decides what reads and writes the files
    made: ClassVar[frozenset[str]]  # the names that `make` puts into the directory
    encodings: ClassVar[tuple[str, ...]] = codecs.ENCODINGS
    # The options and their defaults; `check_option` says what each accepts.
    defaults: ClassVar[Options] = {}
    # What the libraries raise for reasons outside this package.
    errors: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    def __init__(
        self, directory: Directory, marker: Marker, *, writable: bool, verify: bool
    ) -> None:
        self.directory = directory
        self.marker = marker
        self.writable = writable
        self.verify = verify
        self.count = 0

    @classmethod  # noqa: B027
    def check_marker(cls, marker: Marker) -> None:
        """Raise `InvalidInputError` if checked options contradict each other or the images."""

    @classmethod
    @abstractmethod
    def check_option(cls, name: str, value: object) -> OptionValue:
        """Check an option and return it, or raise `InvalidInputError`."""

    @classmethod
    @abstractmethod
    def make(cls, directory: Directory, marker: Marker) -> None:
        """Create the files of an empty store. They are synced when all of them exist."""

    def close(self) -> None:  # noqa: B027
        """Free what is not freed with the object.

        A thread may still be reading. What it uses must stay open until it is done.
        """

    def after_fork(self) -> None:  # noqa: B027
        """Drop, in the child, what must not be shared with the parent."""

    # -- writing: in one thread at a time ----------------------------------------------------

    @abstractmethod
    def append(self, batches: Iterable[Records]) -> None:
        """Write all images of `batches` after the last one, then commit them together.

        If the store is durable, they are synced. On success, `count` includes them.
        """

    @abstractmethod
    def discard(self, count: int) -> None:
        """Remove what an interrupted `append` left after the first `count` images."""

    @abstractmethod
    def sync(self) -> None:
        """Sync everything that this object appended."""

    # -- reading: in any number of threads ---------------------------------------------------

    @abstractmethod
    def read_one(self, index: int) -> tuple[NDArray[np.uint8] | bytes, Shape, int, int]:
        """Read one image as it is stored, its shape, its label and its checksum.

        If all images are raw and of one shape (`Marker.row_bytes`), the image is a new array (H, W,
        C), otherwise bytes.
        """

    @abstractmethod
    def fill(self, wanted: Wanted, records: Records, places: Places) -> None:
        """Fill in data, labels and checksums. Only for raw images of one shape."""

    @abstractmethod
    def fetch(self, wanted: Wanted) -> Records:
        """Read images as they are stored, with their shapes, labels and checksums."""

    @abstractmethod
    def read_labels(self, wanted: Wanted, *, check: bool) -> NDArray[np.int64]:
        """Read labels, (n,) int64, without reading an image.

        If `check` is set and a label is not what was written, raises `DamagedStoreError`.
        """

    def check_structure(self) -> None:  # noqa: B027
        """Check what takes too long for each opening. `verify` calls this."""
