"""RemoteBytes: the bytes of one object elsewhere, in pieces that are fetched once and kept a while."""

from __future__ import annotations

import errno
import threading
from bisect import bisect_right
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from imgstore_zarr.bells import Bells
from imgstore_zarr.index import Int64s
from imgstore_zarr.interruption import Deferred
from imgstore_zarr.storage import Blob, Location, RequestError, each, submit

KEPT_BYTES = 64 * 2**20
"""How much memory the pieces of one file take, beside its headers."""

AHEAD_BYTES = 32 * 2**20
"""How much is requested before it is needed, at most, for one file."""

LARGEST_REQUEST = 8 * 2**20
"""How much one request asks for, at most; headers may be larger."""

# What begins a file: for most it holds the headers, or says where they are.
HEAD_BYTES = 64 * 2**10

# GOPs smaller than this are fetched together: the next request would take longer than the bytes, and
# over so many FFmpeg reads on rather than seek.
_SMALLEST_UNIT = 64 * 2**10

# Before it is known where GOPs begin: how much is read on at a time, and when it is requested ahead.
_LARGEST_BLOCK = 4 * 2**20
_BYTES_AHEAD = 3 * _LARGEST_BLOCK

# What is read before the packets are known, and begins here, every decoder reads again.
_BEGINNING = 2 * 2**20


@dataclass(eq=False)
class _Piece:
    """A part of the file, being fetched or here.

    Attributes
    ----------
    start, stop
        Where it is in the file.
    stays
        Whether it is not given up for others.
    data
        None until it is here.
    done
        Whether nobody fetches it any more.
    request
        What fetches it.
    used
        When it was used last.
    """

    start: int
    stop: int
    stays: bool
    data: memoryview | None = None
    done: bool = False
    request: Future[None] | None = None
    used: int = 0


class RemoteBytes:
    """Reads an object by as few requests as it can; for any number of threads.

    All requests are made by the threads of `submit`, so that whoever waits can be interrupted: it must
    not be read by work that was submitted there itself. The version of which the first piece came is
    the only one that is read, where the storage has names for versions.

    Parameters
    ----------
    location, key
        Where it lies.
    """

    def __init__(self, location: Location, key: str) -> None:
        self._location = location
        self._key = key
        self._lock = threading.Lock()
        self._bells = Bells()
        self._blob: Blob | None = None
        self._size = -1
        # Ascending and disjoint.
        self._starts: list[int] = []
        self._pieces: list[_Piece] = []
        self._edges: Int64s | None = None
        self._clock = 0
        self._block = 0
        self._block_end = -1

    @property
    def size(self) -> int:
        """Bytes in the object; known when the first piece of it is."""
        if self._size < 0:
            self._wait_for(0)
        return self._size

    @property
    def held(self) -> int:
        """How much memory the pieces take, in bytes."""
        with self._lock:
            return sum(piece.stop - piece.start for piece in self._pieces)

    def read(self, position: int, nbytes: int) -> bytes:
        """Return what follows a position, fewer bytes where a piece ends; none only at the end."""
        if position >= self.size:
            return b""
        piece = self._wait_for(position)
        assert piece.data is not None
        at = position - piece.start
        return bytes(piece.data[at : at + nbytes])

    def holds(self, position: int) -> bool:
        """Whether a byte is here, or on its way."""
        with self._lock:
            return self._piece_at(position) is not None

    def keep(self, start: int, stop: int) -> None:
        """Fetch a part by one request, and keep it as long as the object is read."""
        with self._lock:
            begun = [self._begin(*gap, stays=True) for gap in self._gaps(start, stop)]
        for piece in begun:
            self._wait_for(piece.start)

    def plan(self, cuts: Int64s) -> None:
        """From now on fetch what lies between two cuts together, as far as it makes a sensible request.

        Parameters
        ----------
        cuts
            Where GOPs begin, in bytes, ascending.
        """
        edges, last = [0], 0
        for cut in [*cuts.tolist(), self.size]:
            if cut - last < _SMALLEST_UNIT and cut < self.size:
                continue
            count = -(-(cut - last) // LARGEST_REQUEST)
            edges += [last + (cut - last) * i // count for i in range(1, count + 1)]
            last = cut
        self._edges = np.array(edges, np.int64)

    def prefetch(self, ranges: Iterable[tuple[int, int]], nbytes: int | None = None) -> None:
        """Begin to fetch parts that will be read one after the other, if not enough of them is here.

        Parameters
        ----------
        ranges
            (start, stop) of each, in the order in which they will be read.
        nbytes
            How much of them may be here at the same time, by default `AHEAD_BYTES`.
        """
        nbytes = AHEAD_BYTES if nbytes is None else nbytes
        if self._edges is None:
            return
        with self._lock:
            wanted, here, missing = self._ahead(ranges, nbytes)
            # Not one small request after another.
            if here >= nbytes // 2:
                return
            for piece in wanted:
                self._touch(piece)
            for part in missing:
                for gap in self._gaps(*part):
                    self._begin(*gap)

    def parts(self, places: Iterable[tuple[int, int]]) -> list[bytes]:
        """Return many small parts, each by (offset, bytes), by a request each; they are not kept."""

        def part(place: tuple[int, int]) -> bytes:
            start, stop = place[0], min(sum(place), self._size)
            with self._lock:
                piece = self._piece_at(start)
                data = piece.data if piece is not None and stop <= piece.stop else None
            if piece is None or data is None:
                return bytes(self._request(start, stop))
            return bytes(data[start - piece.start : stop - piece.start])

        assert self.size >= 0
        return each(part, places)

    def rest(self) -> None:
        """Give up what only helps to read on."""
        with self._lock:
            for piece in [p for p in self._pieces if p.done and not p.stays]:
                self._remove(piece)

    def _wait_for(self, position: int) -> _Piece:
        """Return the piece in which a byte is; raises what fetching it has raised."""
        while True:
            with self._lock:
                piece = self._piece_at(position)
                begun = piece is None
                if piece is None:
                    piece = self._begin(*self._reach(position))
                self._touch(piece)
                self._read_on(piece)
            while True:
                with self._lock:
                    if piece.done:
                        break
                    bell = self._bells.ask()
                bell.acquire()
            if piece.data is not None:
                return piece
            if begun:
                assert piece.request is not None
                piece.request.result()
                raise AssertionError("unreachable")

    def _piece_at(self, position: int) -> _Piece | None:
        i = bisect_right(self._starts, position) - 1
        return self._pieces[i] if i >= 0 and position < self._pieces[i].stop else None

    def _touch(self, piece: _Piece) -> None:
        self._clock += 1
        piece.used = self._clock

    def _unit(self, position: int) -> tuple[int, int]:
        assert self._edges is not None
        i = int(np.searchsorted(self._edges, position, side="right"))
        return int(self._edges[i - 1]), int(self._edges[i])

    def _reach(self, position: int) -> tuple[int, int]:
        """What to fetch when a byte is missing, as far as it is not here."""
        if self._size < 0:
            return 0, HEAD_BYTES
        if self._edges is None:
            start, stop = position, min(position + self._next_block(position), self._size)
        else:
            start, stop = self._unit(position)
        i = bisect_right(self._starts, position)
        if i:
            start = max(start, self._pieces[i - 1].stop)
        if i < len(self._pieces):
            stop = min(stop, self._starts[i])
        return start, stop

    def _next_block(self, position: int) -> int:
        """Blocks become larger as long as somebody reads on."""
        follows = self._block_end <= position <= self._block_end + self._block
        self._block = min(2 * self._block, _LARGEST_BLOCK) if follows else HEAD_BYTES
        self._block_end = position + self._block
        return self._block

    def _read_on(self, piece: _Piece) -> None:
        """Request what follows, where somebody reads all of a file before its packets are known."""
        if self._edges is not None or self._block < _LARGEST_BLOCK:
            return
        end = min(piece.stop + _BYTES_AHEAD, self._size)
        while piece.stop <= self._block_end < end:
            stop = min(self._block_end + _LARGEST_BLOCK, self._size)
            for gap in self._gaps(self._block_end, stop):
                self._begin(*gap)
            self._block_end = stop

    def _gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of a part is neither here nor on its way."""
        found = []
        for piece in self._pieces[max(bisect_right(self._starts, start) - 1, 0) :]:
            if piece.start >= stop:
                break
            if piece.start > start:
                found.append((start, piece.start))
            start = max(start, piece.stop)
        if start < stop:
            found.append((start, stop))
        return found

    def _ahead(
        self, ranges: Iterable[tuple[int, int]], nbytes: int
    ) -> tuple[list[_Piece], int, list[tuple[int, int]]]:
        """Return what of some ranges is here, how much that is, and what to request of the rest."""
        wanted, missing = list[_Piece](), list[tuple[int, int]]()
        here, last = 0, (-1, -1)
        for start, stop in ranges:
            at = max(start, 0)
            while at < min(stop, self._size):
                unit = self._unit(at)
                at = unit[1]
                if unit == last:
                    continue
                last = unit
                nbytes -= unit[1] - unit[0]
                if nbytes < 0:
                    return wanted, here, missing
                gaps = self._gaps(*unit)
                here += unit[1] - unit[0] - sum(end - begin for begin, end in gaps)
                piece = self._piece_at(unit[1] - 1)
                if piece is not None:
                    wanted.append(piece)
                for begin, end in gaps:
                    before, there = missing[-1] if missing else (begin, -1)
                    if there == begin and end - before <= LARGEST_REQUEST:
                        missing[-1] = before, end
                    else:
                        missing.append((begin, end))
        return wanted, here, missing

    def _begin(self, start: int, stop: int, *, stays: bool = False) -> _Piece:
        """Request a part of which nothing is here; with the lock held."""
        piece = _Piece(start, stop, stays or (self._edges is None and start < _BEGINNING))
        i = bisect_right(self._starts, start)
        self._touch(piece)
        # For a part that nobody fetches others would wait forever.
        with Deferred():
            piece.request = submit(self._fetch, piece)
            self._starts.insert(i, start)
            self._pieces.insert(i, piece)
        return piece

    def _remove(self, piece: _Piece) -> None:
        i = self._pieces.index(piece)
        del self._pieces[i], self._starts[i]

    def _fetch(self, piece: _Piece) -> None:
        data = None
        try:
            data = self._request(piece.start, piece.stop)
        finally:
            with self._lock:
                if data is None:
                    self._remove(piece)
                else:
                    piece.stop = piece.start + len(data)
                    piece.data = data
                    self._forget_oldest()
                piece.done = True
                self._bells.ring()

    def _forget_oldest(self) -> None:
        idle = [piece for piece in self._pieces if piece.data is not None and not piece.stays]
        excess = sum(piece.stop - piece.start for piece in idle) - KEPT_BYTES
        for piece in sorted(idle, key=lambda piece: piece.used):
            if excess <= 0:
                return
            self._remove(piece)
            excess -= piece.stop - piece.start

    def _request(self, start: int, stop: int) -> memoryview:
        # The first piece comes before all others, so that these know the version.
        blob = self._blob or self._location.open(self._key)
        buffer = np.empty(stop - start, np.uint8)
        got = blob.read_into(start, [buffer])
        if self._size < 0:
            self._size, self._blob = blob.size, blob
        if got < min(stop, self._size) - start:
            raise RequestError(
                errno.EIO, f"{got} bytes of {self._key} came where {stop - start} were asked for"
            )
        return buffer[:got].data.toreadonly()
