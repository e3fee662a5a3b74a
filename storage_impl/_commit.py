"""The commit record: how many images a store holds.

The record has two slots of 32 bytes, little-endian, at the start of a file::

    count u64 | serial u64 | 0 u64 | XXH3-64 of the 24 bytes before, u64

The valid slot with the higher serial is current. A commit writes one slot, syncs it if the store is
durable, then writes the other.

If a write is cut short, if a reader sees half of a write, or if one slot is damaged later, the
other slot still has the last count. LMDB's two meta pages work in the same way. Both slots lie in
one sector, which a disk writes as a whole.
"""

import struct
from contextlib import suppress

from storage_impl._checksum import digest
from storage_impl._files import File, pread, pwrite, sync
from storage_impl.errors import DamagedStoreError

_BODY = struct.Struct("<QQQ")
_SUM = struct.Struct("<Q")
_SLOT = _BODY.size + _SUM.size
SIZE = 2 * _SLOT
_LIMIT = 1 << 62


def _pack(count: int, serial: int) -> bytes:
    body = _BODY.pack(count, serial, 0)
    return body + _SUM.pack(digest(body))


INITIAL = bytes(_SLOT) + _pack(count=0, serial=1)
"""The record of a store that holds no image."""


class CommitRecord:
    """The commit record at the start of a file.

    Parameters
    ----------
    file : File
        Open for reading, and also for writing if `commit` is called.

    Attributes
    ----------
    count : int
        Number of committed images, as of the last read or `commit`.

    Raises
    ------
    DamagedStoreError
        Neither slot is valid.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        data = pread(file.fd, SIZE, 0)
        slots = [_unpack(0, data[:_SLOT]), _unpack(1, data[_SLOT:])]
        self._serial, self.count = max(filter(None, slots), default=(0, 0))
        if not self._serial:
            raise DamagedStoreError(
                f"{file.path}: the commit record is damaged: neither of its slots is valid"
            )
        self._in_doubt = False

    def commit(self, count: int, *, durable: bool) -> None:
        """Make `count` the number of images. After a failure call `restore`.

        Raises
        ------
        OSError
            The record could not be written or synced.
        """
        self._in_doubt = True
        self._put(count, durable)
        self.count = count
        # Write the other slot too. If only one slot had the new count, damage to it would silently
        # take the store back to the previous count.
        with suppress(OSError):
            self._put(count, durable=False)
        self._in_doubt = False

    def restore(self, count: int, *, durable: bool) -> None:
        """Go back to `count` after a commit that failed or was interrupted.

        Until it has succeeded, keep the data that the commit refers to.

        Raises
        ------
        OSError
            The record could not be written or synced.
        """
        if self._in_doubt or self.count != count:
            self.commit(count, durable=durable)

    def _put(self, count: int, durable: bool) -> None:
        serial = self._serial + 1
        pwrite(self._file.fd, _pack(count, serial), serial % 2 * _SLOT)
        if durable:
            sync(self._file.fd)
        self._serial = serial


def _unpack(number: int, slot: bytes) -> tuple[int, int] | None:
    if len(slot) != _SLOT:
        return None
    count, serial, _ = _BODY.unpack_from(slot)
    # No store reaches the limit of either number, so a larger one is damage.
    sound = serial % 2 == number and serial < _LIMIT and count < _LIMIT
    return (serial, count) if sound and slot == _pack(count, serial) else None
