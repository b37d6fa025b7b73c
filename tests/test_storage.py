"""Directories, Zarr stores, object storage and web servers behave the same behind Location."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore
from zarr.storage import ObjectStore as ZarrObjectStore

import imgstore_zarr
from imgstore_zarr import Location, UnsupportedFormatError, locate
from imgstore_zarr.storage import Directory, FileBlob, ZarrStore, access_error
from tests import servers

Make = Callable[[Path], Location]


class Hosted:
    """A folder read from a web server, and written to where that has it."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self._folder = Directory(root)
        self._web = locate(servers.web(root.parent).below(root.name).url)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder if name in ("write", "delete") else self._web, name)


def on(place: servers.Place) -> Location:
    return locate(place.url, place.options)


def in_obstore(path: Path, *, by_zarr: bool) -> Location:
    servers.needs("obstore")
    store = servers.s3().store if by_zarr else pytest.importorskip("obstore.store").MemoryStore()
    return locate(ZarrObjectStore(store) if by_zarr else store)


def in_memory(path: Path) -> Location:
    servers.needs("obstore")
    return locate(f"memory://{path.parent.name}/{path.name}")


LOCATIONS: dict[str, Make] = {
    "directory": Directory,
    "local store": lambda path: ZarrStore(LocalStore(path)),
    "memory store": lambda path: ZarrStore(MemoryStore()),
    "group of a store": lambda path: ZarrStore(MemoryStore(), "some/group"),
    "s3": lambda path: on(servers.s3()),
    "prefix on s3": lambda path: on(servers.s3().below("some/pre fix")),
    "azure": lambda path: on(servers.azure().below("recording")),
    "memory": in_memory,
    "obstore's store": lambda path: in_obstore(path, by_zarr=False),
    "zarr's object store": lambda path: in_obstore(path, by_zarr=True),
    "web server": Hosted,
}


@pytest.fixture(params=LOCATIONS)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    return LOCATIONS[request.param](tmp_path / "place")


def test_what_was_written_is_read(location: Location) -> None:
    for data in (b"", b"a", bytes(range(256)) * 1000):
        location.write("image/c/0", data)
        assert location.read("image/c/0") == data
    location.write("other", memoryview(b"viewed"), durable=True)
    assert location.read("other") == b"viewed"
    pixels: Any = np.arange(3, dtype=np.uint8)
    location.write("array", pixels)
    assert location.read("array") == b"\x00\x01\x02"


def test_what_is_not_there_cannot_be_read(location: Location) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        location.read("nothing")
    location.write("a/b", b"data")
    with pytest.raises(FileNotFoundError):
        location.read("a/c")


def test_existence(location: Location) -> None:
    assert not location.exists("image")
    location.write("image/c/0", b"data")
    assert location.exists("image/c/0")
    assert location.exists("image/c")
    assert location.exists("image")
    assert not location.exists("image/c/1")
    assert not location.exists("imag")
    assert not location.exists("image/c/00")


def test_names(location: Location) -> None:
    assert location.names() == []
    assert location.names("image") == []
    for key in ("zarr.json", "image/c/10", "image/c/2", "image/zarr.json", "image2/x"):
        location.write(key, b"data")
    assert location.names() == ["image", "image2", "zarr.json"]
    assert location.names("image") == ["c", "zarr.json"]
    assert location.names("image/c") == ["10", "2"]


def test_nothing_is_below_an_object(location: Location) -> None:
    location.write("zarr.json", b"data")
    if isinstance(location, Hosted):
        # A page without links may as well be a folder that the server does not list.
        with pytest.raises(OSError, match="no listing"):
            location.names("zarr.json")
    else:
        assert location.names("zarr.json") == []


def test_deleting(location: Location) -> None:
    for key in ("image/c/0", "image/c/1", "image/zarr.json", "image2/c/0"):
        location.write(key, b"data")
    location.delete("image/c/0")
    assert location.names("image/c") == ["1"]
    location.delete("image")
    assert not location.exists("image")
    assert location.read("image2/c/0") == b"data"
    location.delete("image")
    location.delete("never/there")


@pytest.mark.parametrize("nbytes", [1, 4, 10])
def test_the_tail_of_an_object(location: Location, nbytes: int) -> None:
    location.write("shard", b"0123456789")
    assert location.open("shard").tail(nbytes) == b"0123456789"[-nbytes:]


@pytest.mark.parametrize("nbytes", [11, 15, 1000])
def test_the_tail_of_an_object_that_is_shorter(location: Location, nbytes: int) -> None:
    location.write("shard", b"0123456789")
    assert location.open("shard").tail(nbytes) == b"0123456789"


def test_the_tail_of_nothing(location: Location) -> None:
    location.write("shard", b"")
    assert location.open("shard").tail(4) == b""


def read_into(location: Location, offset: int, sizes: list[int]) -> tuple[int, list[bytes]]:
    buffers = [np.full(size, 255, np.uint8) for size in sizes]
    count = location.open("shard").read_into(offset, buffers)
    return count, [buffer.tobytes() for buffer in buffers]


def expected_parts(data: bytes, offset: int, sizes: list[int]) -> tuple[int, list[bytes]]:
    parts = []
    count = 0
    for size in sizes:
        part = data[offset : offset + size]
        offset += size
        count += len(part)
        parts.append(part + b"\xff" * (size - len(part)))
    return count, parts


@pytest.mark.parametrize(
    ("offset", "sizes"),
    [
        (0, [10]),
        (3, [2, 1, 3]),
        (0, [4, 0, 6]),
        (9, [1]),
        # Less is there than the buffers hold.
        (0, [11]),
        (4, [4, 4, 4]),
        (9, [3, 3]),
    ],
)
def test_reading_into_buffers(location: Location, offset: int, sizes: list[int]) -> None:
    data = b"0123456789"
    location.write("shard", data)
    assert read_into(location, offset, sizes) == expected_parts(data, offset, sizes)


@pytest.mark.parametrize("offset", [10, 11, 10_000])
def test_reading_past_the_end(location: Location, offset: int) -> None:
    location.write("shard", b"0123456789")
    assert read_into(location, offset, [2, 2]) == (0, [b"\xff\xff", b"\xff\xff"])


def test_more_buffers_than_one_system_call_takes(location: Location) -> None:
    data = np.random.default_rng(0).integers(0, 256, 7000, np.uint8).tobytes()
    location.write("shard", data)
    sizes = [1, 3] * 1700
    assert read_into(location, 5, sizes) == expected_parts(data, 5, sizes)
    # The end of the object lies in the third batch.
    assert read_into(location, 300, sizes) == expected_parts(data, 300, sizes)


@given(st.binary(max_size=40), st.integers(0, 45), st.lists(st.integers(0, 9), max_size=6))
def test_short_system_calls_are_continued(data: bytes, offset: int, sizes: list[int]) -> None:
    """The kernel may hand over less than was asked for, at any place."""

    def preadv(descriptor: int, buffers: list[Any], at: int) -> int:
        rest = data[at : at + 3]
        got = 0
        for buffer in buffers:
            part = rest[: len(buffer)]
            buffer[: len(part)] = np.frombuffer(part, np.uint8)
            rest = rest[len(part) :]
            got += len(part)
        return got

    blob = FileBlob(Path(os.devnull))
    buffers = [np.full(size, 255, np.uint8) for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        count = blob.read_into(offset, buffers)
    assert (count, [b.tobytes() for b in buffers]) == expected_parts(data, offset, sizes)


def test_an_object_that_is_not_there_shows_when_it_is_read(location: Location) -> None:
    # A directory already says so when it is opened, a store only then.
    with pytest.raises(FileNotFoundError):
        location.open("shard").tail(4)
    with pytest.raises(FileNotFoundError):
        location.open("shard").read_into(0, [np.empty(2, np.uint8)])


def test_many_threads_read_one_object(location: Location) -> None:
    data = np.arange(2000, dtype=np.uint16).tobytes()
    location.write("shard", data)
    blob = location.open("shard")
    wrong: list[int] = []

    def read(start: int) -> None:
        for offset in range(start, len(data) - 8, 97):
            buffer = np.empty(8, np.uint8)
            if (
                blob.read_into(offset, [buffer]) != 8
                or buffer.tobytes() != data[offset : offset + 8]
            ):
                wrong.append(offset)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("kind", ["directory", "local store", "s3", "azure", "memory"])
def test_a_location_can_be_pickled(kind: str, tmp_path: Path) -> None:
    location = LOCATIONS[kind](tmp_path / "place")
    location.write("key", b"data")
    again = pickle.loads(pickle.dumps(location))
    assert again.read("key") == b"data"
    assert again == location
    assert len(pickle.dumps(location)) < 1000


def test_an_open_file_outlives_its_name(tmp_path: Path) -> None:
    location = Directory(tmp_path)
    location.write("shard", b"old")
    blob = location.open("shard")
    location.write("shard", b"new!")
    assert blob.tail(9) == b"old"
    location.delete("shard")
    assert blob.tail(9) == b"old"


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    location = Directory(tmp_path)
    location.write("key", b"old")
    unwritable: Any = object()
    with pytest.raises(TypeError):
        location.write("key", unwritable)
    assert location.read("key") == b"old"
    assert location.names() == ["key"]


def test_deleting_a_link_spares_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    Directory(tmp_path).delete("link")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
    assert (tmp_path / "data" / "file").read_bytes() == b"data"


def test_names_of_locations(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    assert (directory.name, directory.path) == (str(tmp_path), tmp_path)
    store = LocalStore(tmp_path)
    assert (ZarrStore(store).name, ZarrStore(store).path) == (str(store), None)
    assert ZarrStore(store, "a/b").name == f"{store}/a/b"
    both: list[Location] = [directory, ZarrStore(store)]
    assert [locate(location) for location in both] == both


def test_locate_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "with space" / "recording"
    expected = Directory(path)
    given: list[object] = [
        path,
        str(path),
        f"{path}/",
        os.fsencode(path),
        path / "metadata.yaml",
        str(path / "zarr.json"),
        path.as_uri(),
        (path / "metadata.yaml").as_uri(),
        path / ".." / "recording",
    ]
    for place in given:
        assert locate(place) == expected, place
    path.mkdir(parents=True)
    monkeypatch.chdir(path.parent)
    assert locate("recording") == expected
    assert locate("./recording/../recording") == expected
    monkeypatch.setenv("HOME", str(path.parent))
    assert locate("~/recording") == expected


def test_locate_keeps_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert locate(tmp_path / "link").path == tmp_path / "link"


def test_locate_stores_and_locations() -> None:
    store = MemoryStore()
    assert locate(store) == ZarrStore(store)
    group = ZarrStore(store, "group")
    assert locate(group) is group

    class Elsewhere(ZarrStore):
        pass

    other = Elsewhere(store)
    assert locate(other) is other


def test_locate_takes_what_behaves_like_a_location(tmp_path: Path) -> None:
    class Wrapper:
        """Counts, delays or fails: made by somebody else."""

        def __init__(self, inner: Location) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    wrapper = Wrapper(Directory(tmp_path))
    assert locate(wrapper) is wrapper


@pytest.mark.parametrize("scheme", ["ftp", "sftp", "hdfs", "S4"])
def test_locate_explains_urls(scheme: str) -> None:
    url = f"{scheme}://bucket/recording"
    with pytest.raises(UnsupportedFormatError, match=rf"{scheme.lower()}://.*s3://.*'{url}'"):
        locate(url)


@pytest.mark.parametrize(
    "place", [None, 3, 1.5, [], object()], ids=lambda thing: type(thing).__name__
)
def test_locate_refuses_what_is_no_location(place: object) -> None:
    with pytest.raises(UnsupportedFormatError, match="is no location"):
        locate(place)


@pytest.mark.parametrize("place", ["", b""])
def test_locate_refuses_an_empty_path(place: object) -> None:
    with pytest.raises(UnsupportedFormatError, match="empty"):
        locate(place)


@pytest.mark.parametrize(
    ("code", "text", "advice"),
    [
        (errno.EACCES, "was refused", "permissions"),
        (errno.EPERM, "was refused", "permissions"),
        (errno.EROFS, "failed", "read-only"),
        (errno.EEXIST, "failed", "something else is there: choose another place"),
        (errno.ENOTDIR, "failed", "something else is there: choose another place"),
        (errno.EISDIR, "failed", "something else is there: choose another place"),
        (errno.ENOENT, "failed", "still there"),
        (errno.ENOSPC, "failed", "make room"),
        (errno.EIO, "failed", "check the storage"),
    ],
)
def test_the_advice_fits_the_error(tmp_path: Path, code: int, text: str, advice: str) -> None:
    error = access_error(Directory(tmp_path), "writing", OSError(code, os.strerror(code)))
    assert f"{tmp_path}: writing {text} ({os.strerror(code)}); " in str(error)
    assert advice in str(error)
    assert ("permissions" in str(error)) == (code in (errno.EACCES, errno.EPERM))


def test_a_refusal_without_a_code_is_one_of_permissions(tmp_path: Path) -> None:
    error = access_error(Directory(tmp_path), "writing", PermissionError("not yours"))
    assert "was refused (not yours); check the permissions" in str(error)


@pytest.mark.parametrize("format", ["raw/zarr", "mjpeg/avi", "png/dir"])
def test_a_recording_where_a_file_is(tmp_path: Path, format: str) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(imgstore_zarr.RecordingAccessError, match="something else is there"):
            imgstore_zarr.create(place, format, (16, 16))
    assert (tmp_path / "file").read_bytes() == b""


def test_files_of_a_directory_from_which_others_remove(tmp_path: Path) -> None:
    for name in ("a/1", "a/b/2", "c/3", "4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    directory = Directory(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in directory.files()} == {
        "a/1",
        "a/b/2",
        "c/3",
        "4",
    }
    assert [path.name for path in directory.files("a/b")] == ["2"]
    assert [*directory.files("gone")] == []
    going = directory.files()
    assert next(going).name == "4"
    shutil.rmtree(tmp_path / "a")
    assert [path.name for path in going] == ["3"]
