"""Pages that every child writes to, copied as it is forked and not one fault at a time.

A forked child shares the memory of its worker until it writes to a page: then the processor
faults and the kernel copies that page, which was most of what a short program cost. Nearly
all those pages are the same for every program (counts of references, free lists, the
interpreter's own tables). Linux copies a page at the fork itself when it is pinned, for its
owner must keep the very page that a device writes to: at a third of the price, and the
worker itself has no fault afterwards. Pages are pinned as the buffers of an io_uring that
is never enabled; its descriptor is closed in the child with all the others, and no child
can call io_uring (see seccomp.py).

Which pages: what two children that ran different programs both wrote to, and what the
worker writes to for each test: after a fork it has a fault for each of them as well. They
are told by the bit of /proc/self/pagemap that is set for a page of one process alone. Where
there is no io_uring (some containers), no pagemap, or too little memory that may be locked
(RLIMIT_MEMLOCK, 2 to 3 MB for a worker), nothing is pinned, and pages are copied as ever.

Sources: https://docs.kernel.org/core-api/pin_user_pages.html and `copy_present_page` in
Linux's mm/memory.c; https://docs.kernel.org/admin-guide/mm/pagemap.html; io_uring_setup(2)
and io_uring_register(2).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from array import array
from collections.abc import Callable, Iterable
from typing import NamedTuple

from stepcoder_jax.execution.sandbox.confinement import (
    Sandbox,
    die_with_parent,
    set_dumpable,
)

_SETUP, _REGISTER = 425, 427  # io_uring's, on every architecture
_REGISTER_BUFFERS = 0
_START_DISABLED = 1 << 6  # IORING_SETUP_R_DISABLED
_PARAMETERS_BYTES, _FLAGS_WORD = 120, 2  # of struct io_uring_params
_MOST_BUFFERS = 1024
_ENTRY = 8  # bytes of a page in pagemap
_PRESENT, _OF_A_FILE, _EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
_KEPT = 256  # above all descriptors that a child closes
_libc = ctypes.CDLL(None, use_errno=True)
Run = Callable[[Sandbox], object]  # of a child in that sandbox, until it has ended


class Region(NamedTuple):
    """A mapping that is private and writable; numbers of pages, the end not included."""

    start: int
    end: int
    is_file: bool


class Witness(Sandbox):
    """A sandbox of which the child tells, as it exits, what pages it wrote to."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.__dict__ |= sandbox.__dict__
        self.regions = _writable_regions()
        self.report = _keep(os.memfd_create("pages", os.MFD_CLOEXEC), _KEPT)

    def enter(self, cpu_seconds: int, memory_bytes: int, output_bytes: int) -> None:
        """As a sandbox, in the child; the layers close the way to /proc."""
        pagemap = _keep(_open_pagemap(), _KEPT + 1)
        super().enter(cpu_seconds, memory_bytes, output_bytes)
        leave = os._exit

        def tell_and_leave(status: int) -> None:
            pages = array("Q", _pages_alone(pagemap, self.regions))
            os.write(self.report, pages)
            leave(status)

        os._exit = tell_and_leave  # type: ignore[assignment]

    def read(self) -> set[int]:
        """The numbers of the pages, once the child has ended."""
        pages = array("Q")
        size = os.fstat(self.report).st_size
        pages.frombytes(os.pread(self.report, size, 0))
        os.close(self.report)
        return set(pages)


def pin_hot_pages(
    sandbox: Sandbox, runs: Iterable[Run], serve: Callable[[], object], place: int
) -> int:
    """Pin, for as long as this process lives, what is written to for each test.

    By the children of all `runs`, each of which is given the sandbox for its child, or by
    this process in `serve`. Returns the number of pages, 0 where it is not possible; the
    io_uring takes the descriptor `place`.
    """
    try:
        hot = _written_by_all(sandbox, runs) | _written_here(serve)
        regions = _writable_regions()
        ring = _keep(_open_ring(), place)
    except OSError:
        return 0
    # older kernels refuse all buffers for one in a mapping of a file
    for with_files in (True, False):
        pages = _pages_in(hot, regions, with_files)
        if pages and _register(ring, _spans(pages)):
            return len(pages)
    os.close(ring)
    return 0


def _written_by_all(sandbox: Sandbox, runs: Iterable[Run]) -> set[int]:
    found: list[set[int]] = []
    for run in runs:
        witness = Witness(sandbox)
        run(witness)
        found.append(witness.read())
    return set.intersection(*found)


def _written_here(action: Callable[[], object]) -> set[int]:
    """The pages that this process writes to in `action`.

    All others it still shares with a child that was forked before and does nothing.
    """
    regions, parent = _writable_regions(), os.getpid()
    pagemap = _keep(_open_pagemap(), _KEPT)
    pid = os.fork()
    if pid == 0:
        die_with_parent(parent)
        while True:
            signal.pause()
    try:
        action()
        return set(_pages_alone(pagemap, regions))
    finally:
        os.close(pagemap)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _keep(descriptor: int, place: int) -> int:
    """Move a descriptor to a number of its own; on OSError it is closed."""
    try:
        os.dup2(descriptor, place, inheritable=False)
    finally:
        os.close(descriptor)
    return place


def _writable_regions() -> list[Region]:
    regions = []
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            span, rights, _, _, inode, *_ = line.split()
            start, end = (int(text, 16) // mmap.PAGESIZE for text in span.split("-"))
            if rights == "rw-p":
                regions.append(Region(start, end, inode != "0"))
    return regions


def _open_pagemap() -> int:
    """A process that is not dumpable may not open its own, unless it is root's."""
    set_dumpable(True)
    try:
        return os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        set_dumpable(False)


def _pages_alone(pagemap: int, regions: Iterable[Region]) -> list[int]:
    """Pages in memory that no other process has: copied, or new, since the fork."""
    pages = []
    for start, end, _ in regions:
        entries = array("Q")
        entries.frombytes(os.pread(pagemap, (end - start) * _ENTRY, start * _ENTRY))
        for page, entry in enumerate(entries, start):
            if entry & _PRESENT and entry & _EXCLUSIVE and not entry & _OF_A_FILE:
                pages.append(page)
    return pages


def _pages_in(pages: set[int], regions: Iterable[Region], with_files: bool) -> list[int]:
    found = []
    for start, end, is_file in regions:
        if with_files or not is_file:
            found += [page for page in range(start, end) if page in pages]
    return found


def _spans(pages: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbouring pages as one span: its first page, and how many there are."""
    spans: list[tuple[int, int]] = []
    for page in sorted(pages):
        if spans and sum(spans[-1]) == page:
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
        else:
            spans.append((page, 1))
    return spans


def _open_ring() -> int:
    parameters = array("I", bytes(_PARAMETERS_BYTES))
    parameters[_FLAGS_WORD] = _START_DISABLED
    address, _ = parameters.buffer_info()
    return _call(_SETUP, 1, address)


def _register(ring: int, spans: list[tuple[int, int]]) -> bool:
    """Whether the kernel took the spans as buffers, and so pinned them."""
    vectors = array("Q")  # struct iovec: address and length
    for first, count in spans[:_MOST_BUFFERS]:
        vectors.extend((first * mmap.PAGESIZE, count * mmap.PAGESIZE))
    address, words = vectors.buffer_info()
    try:
        _call(_REGISTER, ring, _REGISTER_BUFFERS, address, words // 2)
    except OSError:
        return False
    return True


def _call(number: int, *arguments: int) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
