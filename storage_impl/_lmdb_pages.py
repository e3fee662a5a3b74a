"""Check the pages of an LMDB data file before LMDB follows a pointer in them.

LMDB maps its file and trusts it. A page number beyond the end, or a node outside its page, ends the
process with a signal. So the meta, branch and leaf pages are read and checked here, without a map.
Images of about 2 KB or more have pages of their own. These are only counted, because checksums
protect their content.

The format is that of LMDB 0.9 on a 64-bit machine (`lmdb.h` and `mdb.c` of its source).
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage_impl._files import pread
from storage_impl.errors import DamagedStoreError

# Bytes before the nodes of a page. At 10: flags, 12: end of the node table, 14: start of the nodes.
_HEADER = 16
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_PAGE_META, _PAGE_BRANCH, _PAGE_LEAF = 0x08, 0x01, 0x02
_NODE_BIG, _NODE_DATABASE = 0x01, 0x02
_NO_PAGE = 2**64 - 1
_PAGES_AT_ONCE = 1024
_PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)


class Tree(NamedTuple):
    """A database record: `MDB_db`."""

    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


class Meta(NamedTuple):
    """A meta page: `MDB_meta`."""

    page_size: int
    trees: tuple[int, ...]
    last_page: int
    transaction: int

    @property
    def free(self) -> Tree:
        return Tree(*self.trees[:8])

    @property
    def main(self) -> Tree:
        return Tree(*self.trees[8:])


_TREE = struct.Struct("=IHHQQQQQ")
# The flags of the page, then magic, version, address, map size, two trees and two numbers.
_META = struct.Struct("=10xH4x IIQQ IHHQQQQQ IHHQQQQQ QQ")


def read_metas(descriptor: int) -> tuple[Meta, Meta]:
    """Read both meta pages, and check what LMDB relies on when it maps the file.

    Raises
    ------
    DamagedStoreError
        They are damaged, or the file ends before the last page that they name.
    """
    first = _read_meta(descriptor, 0, 0)
    second = _read_meta(descriptor, 1, first.page_size)
    # Get the length last, because a writer extends the file before it updates a meta page.
    last = max(first.last_page, second.last_page)
    _require(last < os.fstat(descriptor).st_size // first.page_size, "the file is cut off")
    return first, second


def _read_meta(descriptor: int, number: int, offset: int) -> Meta:
    page = pread(descriptor, _META.size, offset)
    _require(len(page) == _META.size, "a meta page is cut off")
    flags, magic, version, _, _, *trees, last, transaction = _META.unpack(page)
    page_size, free_flags, main_flags = trees[0], trees[1], trees[9]  # as the first tree's padding
    _require(magic == _MAGIC and version == _VERSION and flags & _PAGE_META, "not a meta page")
    _require(page_size in _PAGE_SIZES, "invalid page size")
    _require(number == 0 or page_size == offset, "invalid page size")
    _require(free_flags == 0x08 and main_flags == 0, "invalid database flags")
    # LMDB finds the meta page of a transaction by the parity of its number.
    _require(transaction == 0 or transaction % 2 == number, "invalid transaction number")
    _require(last >= 1, "invalid last page")
    return Meta(page_size, tuple(trees), last, transaction)


def check_pages(descriptor: int, meta: Meta) -> None:
    """Check each page that LMDB can reach by following pointers.

    Parameters
    ----------
    descriptor
        The data file, opened for reading.
    meta
        A transaction that a reader holds, so that no writer overwrites it.

    Raises
    ------
    DamagedStoreError
        A pointer leads out of its page or of the file, or two pointers lead to one page.
    """
    walk = _Walk(descriptor, meta)
    for tree in walk.databases():
        walk.tree(tree, key_size=8)
    for _, value in walk.tree(meta.free, key_size=8, values=True):
        # If a page were both free and in use, an append could overwrite an image.
        free = np.frombuffer(value[: len(value) & ~7], np.uint64)
        _require(len(free) > 0 and free[0] < len(free), "invalid free list")
        count = int(free[0])
        walk.use(free[1 : 1 + count], np.ones(count, np.int64))


class _Walk:
    """One pass over the trees of a transaction, marking the pages that they use."""

    def __init__(self, descriptor: int, meta: Meta) -> None:
        self._descriptor = descriptor
        self._meta = meta
        self._size = meta.page_size
        self._used = np.zeros(meta.last_page + 1, np.bool_)
        self._used[:2] = True

    def databases(self) -> list[Tree]:
        """The named databases."""
        found = []
        for flags, value in self.tree(self._meta.main, key_size=0, values=True):
            if flags == _NODE_DATABASE:
                _require(len(value) == _TREE.size, "invalid database record")
                found.append(Tree(*_TREE.unpack(value)))
                _require(found[-1].flags == 0, "invalid database record")
        return found

    def use(self, first: NDArray[np.uint64], count: NDArray[np.int64]) -> None:
        """Mark runs of pages, which must lie inside the file and be used by nothing else."""
        _require((first < len(self._used)).all(), "invalid page number")
        start = first.astype(np.int64)
        order = np.argsort(start)
        start, count = start[order], count[order]
        stop = start + count
        _require(
            (start[1:] >= stop[:-1]).all() and (stop <= len(self._used)).all(),
            "page used twice",
        )
        pages = np.repeat(start - (np.cumsum(count) - count), count)
        pages += np.arange(len(pages))
        _require(not self._used[pages].any(), "page used twice")
        self._used[pages] = True

    def tree(self, tree: Tree, key_size: int, values: bool = False) -> list[tuple[int, bytes]]:
        """Check a tree, level by level.

        If `values` is set, returns the flags and the value of each record. A `key_size` of 0
        accepts any size.
        """
        if tree.depth == tree.entries == 0 and tree.root == _NO_PAGE:
            return []
        _require(1 <= tree.depth <= 32, "invalid tree depth")
        numbers = np.array([tree.root], np.uint64)
        for _ in range(tree.depth - 1):
            below = []
            for data, page_numbers in self._pages(numbers):
                _, _, size, flags = self._nodes(data, page_numbers, False, key_size)
                below.append((size | flags << 32).astype(np.uint64))  # the page number, in 48 bits
            numbers = np.concatenate(below)
        found = []
        entries = 0
        for data, page_numbers in self._pages(numbers):
            page, start, size, flags = self._nodes(data, page_numbers, True, key_size)
            entries += len(start)
            found += self._records(data, page, start, size, flags, values)
        _require(entries == tree.entries, "wrong number of records")
        return found

    def _pages(self, numbers: NDArray[np.uint64]) -> Iterator[tuple[bytes, NDArray[np.uint64]]]:
        """Read pages in groups of limited size, and mark them as used."""
        for start in range(0, len(numbers), _PAGES_AT_ONCE):
            part = numbers[start : start + _PAGES_AT_ONCE]
            self.use(part, np.ones(len(part), np.int64))
            yield self._read_pages(part), part

    def _read_pages(self, numbers: NDArray[np.uint64]) -> bytes:
        size = self._size
        data = b"".join([pread(self._descriptor, size, n * size) for n in numbers.tolist()])
        _require(len(data) == len(numbers) * size, "the file is cut off")
        return data

    def _nodes(
        self, data: bytes, numbers: NDArray[np.uint64], leaf: bool, key_size: int
    ) -> tuple[NDArray[np.int64], ...]:
        """For each node: offset of its page in `data`, of its value in the page, size, flags."""
        words = np.frombuffer(data, np.uint16)
        head = words.reshape(len(numbers), -1)[:, : _HEADER // 2].astype(np.int64)
        numbered = head[:, 0] | head[:, 1] << 16 | head[:, 2] << 32
        lower, upper = head[:, 6], head[:, 7]
        count = (lower - _HEADER) >> 1
        _require((numbered == numbers.astype(np.int64)).all(), "invalid page number")
        _require((head[:, 5] == (_PAGE_LEAF if leaf else _PAGE_BRANCH)).all(), "wrong page type")
        sound = (lower <= upper) & (upper <= self._size) & (count >= (1 if leaf else 2))
        _require(sound.all(), "invalid page bounds")
        page = np.repeat(np.arange(len(numbers)) * self._size, count)
        slot = np.arange(len(page)) - np.repeat(np.cumsum(count) - count, count)
        node = words[(page + _HEADER) // 2 + slot].astype(np.int64)
        sound = (node >= np.repeat(upper, count)) & (node % 2 == 0) & (node <= self._size - 8)
        _require(sound.all(), "invalid node")
        low, high, flags, key = (
            words[(page + node) // 2 + field].astype(np.int64) for field in range(4)
        )
        # The first key of a branch page is empty, and never used.
        sound = (key == key_size) | (key_size == 0) | ((slot == 0) & (not leaf))
        start = node + 8 + key
        _require((sound & (start <= self._size)).all(), "invalid key")
        return page, start, low | high << 16, flags

    def _records(
        self,
        data: bytes,
        page: NDArray[np.int64],
        start: NDArray[np.int64],
        size: NDArray[np.int64],
        flags: NDArray[np.int64],
        values: bool,
    ) -> list[tuple[int, bytes]]:
        """Check where the values of leaf pages lie. If `values` is set, return them."""
        big = flags == _NODE_BIG  # the value is the number of the first of its own pages
        _require((flags <= (_NODE_DATABASE if values else _NODE_BIG)).all(), "invalid record")
        here = np.where(big, 8, size)
        _require((start + here <= self._size).all(), "invalid record")
        start = page + start
        pointers = np.frombuffer(data, np.uint8)[start[big, None] + np.arange(8)]
        first = pointers.view(np.uint64).ravel()
        self.use(first, -(-(_HEADER + size[big]) // self._size))
        if not values:
            return []
        sizes: list[int] = size.tolist()
        found = [data[a : a + n] for a, n in zip(start.tolist(), here.tolist(), strict=True)]
        for place, number in zip(np.flatnonzero(big).tolist(), first.tolist(), strict=True):
            offset = number * self._size + _HEADER
            found[place] = pread(self._descriptor, sizes[place], offset)
        return list(zip(flags.tolist(), found, strict=True))


def _require(condition: object, what: str) -> None:
    if not condition:
        raise DamagedStoreError(f"data.mdb is damaged: {what}")
