"""Who uses which LMDB environment in this process: its stores, threads and forks.

LMDB has three rules: a process may open a file only once, it must not use an environment that it
inherited in a fork, and it must not close an environment that is in use. So all stores of a file
share one `OpenFile`.

Locks cannot enforce these rules. A signal handler or a finalizer can run between any two steps of a
thread, and would wait forever for a lock of the thread that it interrupted. Instead, each operation
registers a token that others can see until it ends. To open or close an environment, a thread first
announces it, then looks for tokens of other threads.

A fork waits until the operations of other threads have ended, then closes all environments. They
are opened again when they are next used. If the forking thread itself is using an environment
(because it forks in a signal handler), that one stays open, and the child closes its own before it
opens another one.
"""

import os
import time
from threading import get_ident
from typing import Any
from weakref import ref

import lmdb

PAUSE = 0.0001  # seconds

Key = tuple[int, int]  # device and inode of a data file


class Operation:
    """A token. Its operation is in progress while the token exists and is registered.

    It is registered by a weak reference. An interrupt may prevent any cleanup. But the interrupted
    frame goes away, and with it the token.
    """

    __slots__ = ("__weakref__",)


class OpenFile:
    """The environment that this process has open for a data file.

    Attributes
    ----------
    env : lmdb.Environment or None
        None while no store needs it, and after a fork.
    images, labels : lmdb._Database
        Its databases.
    """

    images: "lmdb._Database"
    labels: "lmdb._Database"

    def __init__(self) -> None:
        self.env: lmdb.Environment | None = None
        self.map_size = 0
        self.writable = False
        self.locks = False  # whether LMDB protects the pages of a reader from a writer
        self.failed = False  # there was an error: it has to be opened again
        self.foreign = False  # it belongs to the parent process
        self.users: dict[ref[Any], None] = {}  # `Environment`s
        self.active: dict[ref[Operation], int] = {}  # operations, and their threads
        self.changing: dict[str, tuple[ref[Operation], int]] = {}

    def claim(self, mark: "ref[Operation]") -> tuple["ref[Operation]", int]:
        """Announce a change of the environment. Return the valid claim, maybe of another thread."""
        while True:
            changing = self.changing
            claim = changing.setdefault("by", (mark, get_ident()))
            if claim[0]() is not None:
                return claim
            if self.changing is changing:  # nothing can run between this line and the next
                self.changing = {}

    def unclaim(self, mark: "ref[Operation]") -> None:
        """Withdraw a claim, if it was made."""
        if self.changing.get("by", (None,))[0] is mark:
            self.changing = {}

    def operations(self) -> "list[tuple[ref[Operation], int]]":
        """The operations in progress, and their threads."""
        return [item for item in list(self.active.items()) if item[0]() is not None]

    def others(self) -> bool:
        """Whether other threads have operations in progress."""
        me = get_ident()
        return any(thread != me for _, thread in self.operations())

    def interrupted(self, mark: "ref[Operation]") -> bool:
        """Whether this thread has an operation in progress other than that of `mark`."""
        me = get_ident()
        return any(thread == me and other is not mark for other, thread in self.operations())

    def is_used(self) -> bool:
        """Whether a store has it open."""
        return any(user() is not None for user in list(self.users))


open_files: dict[Key, OpenFile] = {}
# What this process inherited in a fork. The environment in it has to be closed before another one
# of the same file is opened.
inherited: dict[Key, OpenFile] = {}
forks: dict[object, int] = {}  # in progress, and their threads


def must_wait(mark: "ref[Operation]", file: OpenFile | None = None) -> bool:
    """Whether an operation must wait for a fork, or for a change of its file, to end.

    An operation does not wait for a fork or change of its own thread. Nor does it wait if it runs
    in a signal handler that interrupted another operation: the fork or change itself waits for that
    operation.
    """
    if not forks and (file is None or not file.changing):
        return False
    me = get_ident()
    claim = None if file is None else file.changing.get("by")
    waits = claim is not None and claim[0]() is not None and claim[1] != me
    if not waits and all(thread == me for thread in list(forks.values())):
        return False
    return not any(file.interrupted(mark) for file in list(open_files.values()))


def _before_fork() -> None:
    forks[object()] = get_ident()
    while any(file.others() for file in list(open_files.values())):
        time.sleep(PAUSE)
    for key, file in list(open_files.items()):
        if not file.operations():
            env, file.env = file.env, None
            if env is not None:
                env.close()
            if not file.is_used():
                del open_files[key]


def _after_fork_in_parent() -> None:
    me = get_ident()
    mine = [token for token, thread in list(forks.items()) if thread == me]
    for token in mine[-1:]:
        del forks[token]


def _after_fork_in_child() -> None:
    for key, file in open_files.items():
        if file.operations() or file.env is not None:
            inherited[key] = file
            file.foreign = True
    open_files.clear()
    forks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
