"""What a disk may hold after a power cut, from a log of the calls before it.

The rules are those that POSIX gives a program, not what one file system does beyond them:

- fsync of a file makes its data and its length durable, and not its name;
- fsync of a directory makes the names in it durable as they are then: those added, changed
  and removed;
- a write through O_DSYNC is durable itself, and no other write before it is;
- of all the rest any subset may be on the disk: writes torn at sectors of 512 bytes and in
  any order, a longer file with zeros or with old content of the disk where its data did not
  arrive, a name without the one before it. A rename is there or not, never half, unless
  only one of two directories was synced.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .tool import SYNCED, WRITABLE, Op, Record

SECTOR = 512
Keep = Callable[[str], bool]  # whether a "name", a "piece" of data or a "length" arrived


@dataclass
class _Change:
    """A write (`data`), or a change of length (to `length`, or to that at the least)."""

    offset: int = 0
    data: bytes | None = None
    length: int = 0
    grow_only: bool = False
    durable: bool = False


@dataclass
class _File:
    synced: bytearray = field(default_factory=bytearray)
    changes: list[_Change] = field(default_factory=list)

    def sync(self) -> None:
        self.synced = self.content(lambda kind: True, 0)
        self.changes = []

    def content(self, keep: Keep, filler: int) -> bytearray:
        """One state; `filler` stands where a length arrived without the data."""
        data, length = bytearray(self.synced), len(self.synced)
        for change in self.changes:
            if change.data is None:
                if change.durable or keep("length"):
                    length = max(length, change.length) if change.grow_only else change.length
                    _resize(data, length, 0)
                continue
            stop = change.offset + len(change.data)
            start = change.offset
            while start < stop:
                end = min(stop, (start // SECTOR + 1) * SECTOR)
                if change.durable or keep("piece"):
                    _resize(data, max(len(data), end), filler)
                    data[start:end] = change.data[start - change.offset : end - change.offset]
                start = end
            if change.durable or keep("length"):
                _resize(data, max(len(data), stop), filler)
            length = len(data)
        return data


def _resize(data: bytearray, length: int, filler: int) -> None:
    del data[length:]
    data.extend(bytes([filler]) * (length - len(data)))


@dataclass
class _Entry:
    name: str
    node: "_File | _Directory | None"  # None: the name is gone
    call: int  # entries of one call arrive together


@dataclass
class _Directory:
    names: "dict[str, _File | _Directory]" = field(default_factory=dict)
    synced: "dict[str, _File | _Directory]" = field(default_factory=dict)
    changes: list[_Entry] = field(default_factory=list)

    def put(self, name: str, node: "_File | _Directory | None", call: int) -> None:
        if node is None:
            self.names.pop(name, None)
        else:
            self.names[name] = node
        self.changes.append(_Entry(name, node, call))

    def sync(self) -> None:
        self.synced = dict(self.names)
        self.changes = []


class Disk:
    """A directory as the calls of a log change it, and what of that would survive.

    Parameters
    ----------
    root : Path
        The watched directory; empty, and itself durable, when the log begins.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._top = _Directory()
        self._calls = 0

    def apply(self, record: Record) -> None:
        """Follow one call of the log."""
        self._calls += 1
        if record.op in (Op.MARK, Op.OPEN):
            return
        if record.op is Op.MMAP:
            # LMDB's table of readers is no part of the data: it is made anew.
            if record.flags & WRITABLE and not record.path.endswith("lock.mdb"):
                raise ValueError(f"{record.path} is mapped for writing, which no log can follow")
            return
        if record.op is Op.SYNC_ALL:
            self._sync_all(self._top)
            return
        if record.path.endswith(" (deleted)"):
            return
        if record.op in (Op.WRITE, Op.TRUNCATE, Op.ALLOCATE):
            self._change_file(record)
            return
        if record.op is Op.SYNC:
            self._find(record.path).sync()
            return
        parent, name = self._parent(record.path)
        if record.op is Op.CREATE:
            parent.put(name, _File(), self._calls)
        elif record.op is Op.MKDIR:
            parent.put(name, _Directory(), self._calls)
        elif record.op in (Op.UNLINK, Op.RMDIR):
            parent.put(name, None, self._calls)
        else:
            node = parent.names[name]
            target, name2 = self._parent(record.path2)
            target.put(name2, node, self._calls)
            if record.op is Op.RENAME:
                parent.put(name, None, self._calls)

    def _change_file(self, record: Record) -> None:
        file = self._find(record.path)
        assert isinstance(file, _File)
        if record.op is Op.WRITE:
            durable = bool(record.flags & SYNCED)
            file.changes.append(_Change(record.offset, record.data, durable=durable))
        elif record.op is Op.TRUNCATE:
            file.changes.append(_Change(length=record.length))
        elif not record.flags & 1:  # FALLOC_FL_KEEP_SIZE
            length = record.offset + record.length
            file.changes.append(_Change(length=length, grow_only=True))

    def _sync_all(self, directory: _Directory) -> None:
        directory.sync()
        for node in directory.names.values():
            if isinstance(node, _Directory):
                self._sync_all(node)
            else:
                node.sync()

    def _find(self, path: str) -> _File | _Directory:
        node: _File | _Directory = self._top
        for part in Path(path).relative_to(self._root).parts:
            assert isinstance(node, _Directory)
            node = node.names[part]
        return node

    def _parent(self, path: str) -> tuple[_Directory, str]:
        head, name = os.path.split(path)
        parent = self._find(head)
        assert isinstance(parent, _Directory)
        return parent, name

    def cut(self, target: Path, keep: Keep, filler: int = 0) -> None:
        """Write into `target` one state that a power cut may leave now."""
        decided: dict[int, bool] = {}
        self._write(self._top, target, keep, filler, decided)

    def _write(
        self,
        directory: _Directory,
        target: Path,
        keep: Keep,
        filler: int,
        decided: dict[int, bool],
    ) -> None:
        target.mkdir()
        names = dict(directory.synced)
        for entry in directory.changes:
            if entry.call not in decided:
                decided[entry.call] = keep("name")
            if decided[entry.call]:
                names.pop(entry.name, None)
                if entry.node is not None:
                    names[entry.name] = entry.node
        for name, node in names.items():
            if isinstance(node, _Directory):
                self._write(node, target / name, keep, filler, decided)
            else:
                (target / name).write_bytes(node.content(keep, filler))


def everything(kind: str) -> bool:
    """All that was called has arrived: the state of a kill, not of a power cut."""
    return True


def choose(random_: random.Random) -> tuple[Keep, int]:
    """A manner in which things get lost, and what fills the gaps."""
    share = random_.random()
    manners: list[Keep] = [
        lambda kind: False,
        everything,
        lambda kind: kind == "name",
        lambda kind: kind != "name",
        lambda kind: kind in ("name", "length"),
        lambda kind: random_.random() < share,
        lambda kind: random_.random() < share,
        lambda kind: kind == "name" or random_.random() < share,
        lambda kind: kind != "name" or random_.random() < share,
    ]
    return random_.choice(manners), random_.choice((0, 0, 0xA5))
