"""The commit record: how many images a store of files holds.

Two slots of 32 bytes, little-endian, at the start of a file::

    count u64 | serial u64 | 0 u64 | XXH3-64 of the 24 bytes before, u64

The valid slot with the higher serial counts. A commit writes the other one, so
that a write that was cut short, or that a reader meets half-way, leaves the last
count standing: the method of LMDB's two meta pages.
"""

import os
import struct
from pathlib import Path

from storage_impl._checksum import digest
from storage_impl._files import pread, pwrite
from storage_impl.errors import DamagedStoreError, WriteFailedError

_BODY = struct.Struct("<QQQ")
_SUM = struct.Struct("<Q")
_SLOT = _BODY.size + _SUM.size
SIZE = 2 * _SLOT


def _pack(count: int, serial: int) -> bytes:
    body = _BODY.pack(count, serial, 0)
    return body + _SUM.pack(digest(body))


INITIAL = bytes(_SLOT) + _pack(count=0, serial=1)
"""The record of a store that holds no image."""


class CommitRecord:
    """The commit record in a file that the caller keeps open.

    Parameters
    ----------
    descriptor : int
        The file, opened for reading, and for writing too where `commit` is called.

    Attributes
    ----------
    count : int
        Images committed when the record was read, or by the last `commit`.
    in_doubt : bool
        A commit failed and its trace could not be removed: whether a reader sees it
        is open, so what it refers to must stay, and nothing may be written.

    Raises
    ------
    DamagedStoreError
        Neither slot is valid.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        data = pread(descriptor, SIZE, 0)
        self._slots = [data[:_SLOT], data[_SLOT:]]
        self._serial, self.count = max(
            filter(None, map(_unpack, range(2), self._slots)), default=(0, 0)
        )
        if not self._serial:
            raise DamagedStoreError("the commit record is damaged: neither of its slots is valid")
        self.in_doubt = False

    def check(self, path: Path) -> None:
        """Refuse to write on top of a commit that is in doubt.

        Raises
        ------
        WriteFailedError
            It is.
        """
        if self.in_doubt:
            raise WriteFailedError(
                f"an earlier write to {path} failed so that its outcome is open; "
                "close the store and open it again"
            )

    def commit(self, count: int, *, sync: bool) -> None:
        """Make `count` the number of images; on failure the old one is put back.

        Raises
        ------
        OSError
            The record could not be written or synced.
        """
        serial = self._serial + 1
        number = serial % 2
        slot = _pack(count, serial)
        try:
            self._write(number, slot, sync)
        except BaseException:
            self.in_doubt = True
            # What a failed fsync left in the cache would be read as committed.
            self._write(number, self._slots[number], sync)
            self.in_doubt = False
            raise
        self._slots[number] = slot
        self._serial = serial
        self.count = count

    def _write(self, number: int, slot: bytes, sync: bool) -> None:
        pwrite(self._descriptor, slot, number * _SLOT)
        if sync:
            os.fsync(self._descriptor)


def _unpack(number: int, slot: bytes) -> tuple[int, int] | None:
    if len(slot) != _SLOT:
        return None
    count, serial, _ = _BODY.unpack_from(slot)
    return (serial, count) if serial % 2 == number and slot == _pack(count, serial) else None
