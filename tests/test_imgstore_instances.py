"""What scripts ask stores and writers for under imgstore's names; the answers are those of imgstore."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import imgstore_compat.imgstore as names
import numpy as np
import pytest
import yaml
from imgstore_compat.imgstore import stores
from imgstore_compat.imgstore.instances import ScriptWriter

import imgstore_zarr
from imgstore_zarr import (
    ImgStore,
    ImgStoreWriter,
    InvalidMetadataError,
    RecordingNotFoundError,
    UnsupportedFormatError,
)
from tests.reference import Reference
from tests.reference.worker import tell, tell_while_writing
from tests.test_differential_reading import EXTRA, METADATA, NUMBERS, TIMES, steps_for
from tests.videos import scene

pytestmark = pytest.mark.timeout(600)

QUESTIONS: list[list[Any]] = [
    ["FRAME_MD"],
    ["supports_format", "png"],
    ["supports_format", "mjpeg"],
    ["supports_format", "gif"],
    ["_metadata"],
    ["_user_metadata"],
    ["_basedir"],
    ["_imgdtype"],
    ["_chunksize"],
    ["_format"],
    ["_encoding"],
    ["_uuid"],
    ["_color"],
    ["_chunk_n"],
    ["_mode"],
    ["_timezone_local"],
]
OF_READING: list[list[Any]] = [
    *QUESTIONS,
    ["_imgshape"],
    ["_created_utc"],
    ["_chunk_current_frame_idx"],
    ["_get_chunk_metadata", 1],
    ["_get_chunk_metadata", 7],
]
OF_WRITING: list[list[Any]] = [
    *(q for q in QUESTIONS if q[0] not in ("_metadata", "_uuid", "_basedir")),
    ["_frame_n"],
    ["has_extra_data"],
]
FORMATS = ["png", "npy", "jpg", "mjpeg", "mjpeg/avi"]


def plain(answers: Any) -> Any:
    return json.loads(json.dumps(answers, default=str))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", scene(len(NUMBERS), (48, 64)))
    return tmp_path / "images.npy"


def write(reference: Reference, path: Path, format: str, images: Path) -> Path:
    steps = steps_for(NUMBERS, TIMES, EXTRA)
    reference(
        "record", path=path, format=format, images=images, steps=steps, chunksize=4,
        metadata=METADATA,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_what_stores_say(reference: Reference, tmp_path: Path, images: Path, format: str) -> None:
    path = write(reference, tmp_path / "r", format, images)
    questions = OF_READING + [["_ext"]] * format.startswith("mjpeg")
    for read in (0, 1, 4, 5, 11):
        mine = plain(tell(names, str(path), questions, read))
        theirs = reference("tell", path=path, questions=questions, read=read)
        for question, one, other in zip(questions, mine, theirs, strict=True):
            assert one == other, (question, read)


@pytest.mark.parametrize("format", FORMATS)
def test_lists_of_stores(reference: Reference, tmp_path: Path, images: Path, format: str) -> None:
    # imgstore has them in the order of the file system.
    path = write(reference, tmp_path / "r", format, images)
    questions: list[list[Any]] = [["_chunk_n_and_chunk_paths"], ["supported_formats"]]
    questions += [["_chunk_paths"]] * format.startswith("mjpeg")
    mine = plain(tell(names, str(path), questions))
    theirs = reference("tell", path=path, questions=questions)
    # imgstore writes bpk only where bloscpack is installed.
    assert [sorted(a for a in answer if a != "bpk") for answer in mine] == [
        sorted(answer) for answer in theirs
    ]
    store: Any = names.new_for_filename(str(path))
    assert list(store._iter_chunk_n_and_chunk_paths()) == store._chunk_n_and_chunk_paths
    assert store._index.find_chunk("frame_number", 100) == (2, 1)


@pytest.mark.parametrize("format", ["png", "npy", "jpg", "mjpeg"])
def test_what_writers_say(reference: Reference, tmp_path: Path, images: Path, format: str) -> None:
    steps = steps_for(NUMBERS, TIMES, EXTRA)
    asked: dict[str, Any] = {"steps": steps, "questions": OF_WRITING, "chunksize": 4}
    theirs = reference(
        "tell_while_writing", path=tmp_path / "theirs", format=format, images=images, **asked
    )
    here = f"{format}/dir" if format in ("png", "npy") else format
    mine = tell_while_writing(names, str(tmp_path / "ours"), here, str(images), **asked)
    for step, one, other in zip(steps, plain(mine), theirs, strict=True):
        assert one == other, step


@pytest.mark.parametrize("format", ["npy", "npy/dir", "avc1/mp4"])
def test_extra_data_while_writing(tmp_path: Path, format: str) -> None:
    path = tmp_path / "r"
    with names.new_for_format(format, str(path), imgshape=(16, 16), chunksize=2) as writer:
        assert isinstance(writer, ImgStoreWriter)
        assert (writer.has_extra_data, writer.find_extra_data_files()) == (False, [])
        for i in range(5):
            writer.add_image(np.zeros((16, 16), np.uint8), i, float(i))
            writer.add_extra_data(i=i)
        assert writer.has_extra_data
        found = [Path(file).relative_to(path) for file in writer.find_extra_data_files()]
        layout = writer.info.layout
        if layout == "zarr":
            assert found == [Path("extra")]
        else:
            assert found == sorted(p.relative_to(path) for p in path.rglob("*.extra.json"))
            assert len(found) == 3
            assert writer.find_extra_data_files([".extra_data.h5"]) == []
        writer.empty()
        assert (writer.has_extra_data, writer.find_extra_data_files()) == (False, [])


@pytest.mark.parametrize("format", ["npy", "npy/dir", "mjpeg"])
def test_a_store_cannot_be_emptied(reference: Reference, tmp_path: Path, format: str) -> None:
    path = tmp_path / "r"
    with names.new_for_format(format, str(path), imgshape=(16, 16)) as writer:
        assert isinstance(writer, ImgStoreWriter)
        writer.add_image(np.zeros((16, 16), np.uint8), 5, 1.0)
    store: Any = names.new_for_filename(str(path))
    with pytest.raises(ValueError, match="only recordings that are being written"):
        store.empty()
    assert store.get_next_image()[1] == (5, 1.0)
    if format != "npy":
        (outcome,) = reference("perform", path=path, calls=[("empty", {})])
        assert "ValueError" in outcome["raised"]["builtins"]


def test_stores_of_the_classes_and_in_other_processes(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"basedir": str(tmp_path / "r"), "imgshape": (16, 16)}
    make: Any = stores.DirectoryImgStore
    with make(mode="w", format="png", **arguments) as writer:
        assert isinstance(writer, stores._ImgStore)
        assert isinstance(writer, ImgStoreWriter)
        writer.add_image(np.zeros((16, 16), np.uint8), 5, 1.0)
    store = make(mode="r", basedir=arguments["basedir"])
    assert isinstance(store, stores._ImgStore)
    assert isinstance(store, ImgStore)
    again = pickle.loads(pickle.dumps(store))
    assert again.FRAME_MD == ("frame_number", "frame_time")
    assert again.get_next_image()[1] == (5, 1.0)
    assert store.extract_only_frame(store.full_path, 0).shape == (16, 16)


def test_stores_of_zarr(tmp_path: Path) -> None:
    path = str(tmp_path / "r")
    with names.new_for_format("png", path, imgshape=(16, 16), chunksize=2) as writer:
        assert isinstance(writer, ScriptWriter)
        assert writer._metadata["imgshape"] == [16, 16]
        for i in range(5):
            writer.add_image(np.zeros((16, 16), np.uint8), i, float(i))
    store: Any = names.new_for_filename(path)
    said = yaml.safe_load((tmp_path / "r" / "metadata.yaml").read_text())["__store"]
    assert store._metadata == said
    assert store._metadata["uuid"] == store.uuid
    assert store._metadata["class"] == "ZarrImgStore"
    paths = [f"{path}/{chunk:06d}" for chunk in range(3)]
    assert store._chunk_n_and_chunk_paths == list(enumerate(paths))
    assert sorted((tmp_path / "r").glob("00*")) == []
    assert store.supported_formats() == stores.DirectoryImgStore.supported_formats()


def test_private_functions(reference: Reference, tmp_path: Path, images: Path) -> None:
    path = write(reference, tmp_path / "r", "png", images)
    (theirs,) = reference("tell", path=path, questions=[["_metadata"]])
    assert stores._extract_store_metadata(str(path / "metadata.yaml")) == theirs
    with pytest.raises(RecordingNotFoundError, match=r"has no metadata\.yaml"):
        stores._extract_store_metadata(str(tmp_path / "metadata.yaml"))
    for text in ("a: 1", "[", "__store: 3"):
        (tmp_path / "metadata.yaml").write_text(text)
        with pytest.raises(InvalidMetadataError, match="has no mapping __store"):
            stores._extract_store_metadata(str(tmp_path / "metadata.yaml"))


def test_parsing_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "metadata.yaml").touch()
    parse = stores._parse_basedir_fullpath
    # As imgstore gives them: what was given is kept.
    assert parse("r", None, True) == ("r", "r/metadata.yaml")
    assert parse("r/metadata.yaml", None, True) == ("r", "r/metadata.yaml")
    assert parse("no/metadata.yaml", None, True) == ("no", "no/metadata.yaml")
    assert parse(None, "no", True) == ("no", "no/metadata.yaml")
    assert parse("no", None, False) == ("no", "no/metadata.yaml")
    for wrong in (("r", "r", True), (None, "r/metadata.yaml", True), (None, None, True)):
        with pytest.raises(ValueError, match=r"give|directory"):
            parse(*wrong)
    with pytest.raises(RecordingNotFoundError, match="no does not exist"):
        parse("no", None, True)


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with imgstore_zarr.create("r", "npy/dir", (16, 16)) as writer:
        writer.add_image(np.zeros((16, 16), np.uint8), 5, 1.0)
        writer.add_extra_data(a=1)
    store = names.new_for_filename("r")
    assert store.filename == str(tmp_path / "r")
    assert store.find_extra_data_files() == [str(tmp_path / "r/000000/index.extra.json")]
    monkeypatch.chdir("/")
    assert Path(store.full_path).exists()
    assert store.get_next_image()[1] == (5, 1.0)


def test_what_is_not_there(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "npy/dir", (16, 16)) as writer:
        writer.add_image(np.zeros((16, 16), np.uint8), 5, 1.0)
    store = names.new_for_filename(str(tmp_path / "r"))
    for name in ("_load_chunk", "_load_image", "_save_image", "_save_chunk", "_cap", "_chunk_md"):
        assert not hasattr(store, name)
    path = str(tmp_path / "w")
    with names.new_for_format("png/dir", path, imgshape=(16, 16)) as begun:
        assert not hasattr(begun, "get_image")
        assert not hasattr(begun, "get_extra_data")
        assert len(names.new_for_filename(path)) == 0
    # Those of the new names have none of imgstore's private attributes.
    assert not hasattr(imgstore_zarr.open(tmp_path / "r"), "_metadata")
    with pytest.raises(UnsupportedFormatError):
        names.new_for_filename(str(tmp_path / "r"), mode="w")
