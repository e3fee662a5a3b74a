"""What a backend implements.

`storage_impl.store.ImageStore` checks arguments, decodes, verifies and keeps the promise that a
write is all or nothing. A backend keeps records (`storage_impl._records`) in its files.

Two rules hold for each. Whatever it opens in the file system it opens from the `Directory` it was
given, so that it stays with that directory when the path is renamed, and follows no link. And no
method cleans up after itself when it fails or is interrupted: what it leaves behind is removed by
`discard`, which the store calls in the process that began the write and in no other.
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
"""Which images: a range of step 1, or (n,) indices in any order with repeats. All exist."""


class Backend(ABC):
    """The files of one store, open in this process.

    Parameters
    ----------
    directory : Directory
        The store's directory.
    marker : Marker
        What `store.json` says, with all options.
    writable : bool
        Whether `append`, `discard` and `sync` will be called: the caller holds the writer's lock.
    verify : bool
        Whether the structure of the files is to be checked before it is used.

    Attributes
    ----------
    count : int
        Images committed when it was opened, or by the last `append` or `discard`.

    Raises
    ------
    DamagedStoreError
        What is there is not what was written, or ends too early.
    """

    name: ClassVar[str]
    library: ClassVar[str]  # the distribution that reads and writes the files
    made: ClassVar[frozenset[str]]  # the names that `make` puts into the directory
    encodings: ClassVar[tuple[str, ...]] = codecs.ENCODINGS
    # The options and their defaults; `check_option` says what each accepts.
    defaults: ClassVar[Options] = {}
    # What the libraries raise for reasons outside of this package.
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
        """Raise `InvalidInputError` where checked options contradict each other or the images."""

    @classmethod
    @abstractmethod
    def check_option(cls, name: str, value: object) -> OptionValue:
        """One option; raises `InvalidInputError`."""

    @classmethod
    @abstractmethod
    def make(cls, directory: Directory, marker: Marker) -> None:
        """Make the files of an empty store; they are synced when all of them are there."""

    def close(self) -> None:  # noqa: B027
        """Free what is not freed with the object.

        A thread may still be reading: what it uses must stay open until it has done.
        """

    def after_fork(self) -> None:  # noqa: B027
        """Forget, in the child, what must not be shared with the parent."""

    # -- writing: in one thread at a time ----------------------------------------------------

    @abstractmethod
    def append(self, batches: Iterable[Records]) -> None:
        """Write all images of `batches` after the last, then commit them as one.

        Synced if the store is durable. On success `count` has grown.
        """

    @abstractmethod
    def discard(self, count: int) -> None:
        """Remove what an interrupted `append` left beyond the first `count` images."""

    @abstractmethod
    def sync(self) -> None:
        """Bring to the disk all that was appended by this object."""

    # -- reading: in any number of threads ---------------------------------------------------

    @abstractmethod
    def read_one(self, index: int) -> tuple[NDArray[np.uint8] | bytes, Shape, int, int]:
        """Read what is stored of one image, its shape, label and checksum.

        Where all images are raw and of one shape (`Marker.row_bytes`), it is an array (H, W, C),
        the caller's own; else bytes.
        """

    @abstractmethod
    def fill(self, wanted: Wanted, records: Records, places: Places) -> None:
        """Fill data, labels and checksums; only of raw images of one shape."""

    @abstractmethod
    def fetch(self, wanted: Wanted) -> Records:
        """Read the stored bytes of images with all that belongs to them."""

    @abstractmethod
    def read_labels(self, wanted: Wanted, *, check: bool) -> NDArray[np.int64]:
        """Read labels, (n,) int64, without touching an image.

        Raises `DamagedStoreError` where `check` is set and one is not what was written.
        """

    def check_structure(self) -> None:  # noqa: B027
        """Check what takes too long at each opening; called by `verify`."""
