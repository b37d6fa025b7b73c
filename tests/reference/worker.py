"""What is done with a package that has imgstore's interface.

The functions take the package and give plain values, so that the answers of two can be compared. Run as
a script, this serves them on the real imgstore as JSON lines: ``{"do": function, "with": arguments}`` is
answered by ``{"result": ...}`` or ``{"raised": ...}``. It must run where only imgstore is installed.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Call = Sequence[Any]
"""The name of a method of a store, and its arguments by name."""


def _raised(error: Exception) -> dict[str, Any]:
    known = [kind.__name__ for kind in type(error).__mro__ if hasattr(builtins, kind.__name__)]
    return {"name": type(error).__name__, "builtins": known, "message": str(error)}


def _opened(package: Any, path: str, **options: Any) -> Any:
    return package.new_for_filename(path, **options)


def describe(package: Any, path: str) -> dict[str, Any]:
    """Everything that a store says of itself without reading an image."""
    with _opened(package, path) as store:
        created, timezone = store.created
        numbers = {
            "frame_min": store.frame_min,
            "frame_max": store.frame_max,
            "frame_number": store.frame_number,
            "frame_time_min": store.frame_time_min,
            "frame_time_max": store.frame_time_max,
            "duration": store.duration,
        }
        root = store.filename
        return {
            # NaN does not equal itself.
            **{name: None if np.isnan(value) else value for name, value in numbers.items()},
            "frame_count": store.frame_count,
            "len": len(store),
            "mode": store.mode,
            "filename": root,
            "full_path": store.full_path,
            "image_shape": list(store.image_shape),
            "chunks": list(store.chunks),
            "lossless": store.lossless,
            "uuid": store.uuid,
            "user_metadata": store.user_metadata,
            "created": created.isoformat(),
            "timezone": str(timezone),
            "local_time": [
                store.convert_frame_time_to_datetime(time).isoformat()
                for time in (0.0, 1.7e9, 1720000000.125)
            ],
            "frame_metadata": store.get_frame_metadata(),
            "has_extra_data": store.has_extra_data,
            "extra_data_files": [os.path.relpath(f, root) for f in store.find_extra_data_files()],
        }


def perform(
    package: Any, path: str, calls: Sequence[Call], decode: bool = True, **options: Any
) -> list[dict[str, Any]]:
    """Make calls on a store, one after the other; return what came of each."""
    outcomes = []
    with _opened(package, path, **options) as store:
        if not decode:
            store.disable_decoding()
        for method, arguments in calls:
            try:
                outcome = {"got": _plain(getattr(store, method)(**arguments))}
            except Exception as error:  # noqa: BLE001 - what is raised is what is compared
                outcome = {"raised": _raised(error)}
            number = store.frame_number
            outcomes.append({**outcome, "at": None if np.isnan(number) else int(number)})
    return outcomes


def _plain(value: Any) -> Any:
    """An image and its metadata as values that are equal only if they are."""
    if not isinstance(value, tuple):
        return int(value)
    image, (number, time) = value
    return {**_image(image), "number": int(number), "time": float(time)}


def _image(image: Any) -> dict[str, Any]:
    if image is None:  # what imgstore gives where OpenCV could not read the file
        return {"shape": None}
    pixels = np.ascontiguousarray(image)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return {"shape": list(pixels.shape), "dtype": pixels.dtype.str, "sha256": digest}


def only_frames(package: Any, path: str, positions: Sequence[int]) -> list[dict[str, Any]]:
    """What `extract_only_frame` gives."""
    return [_image(package.extract_only_frame(path, position)) for position in positions]


def save_frames(package: Any, path: str, destination: str) -> None:
    """Save all images, read one after the other, as one array."""
    with _opened(package, path) as store:
        images = [store.get_next_image()[0] for _ in range(store.frame_count)]
    np.save(destination, np.stack(images))


def extra_data(
    package: Any, path: str, ignore_corrupt_chunks: bool = False
) -> list[list[Any]] | None:
    """The extra data: per column its name, dtype and values."""
    with _opened(package, path) as store:
        table = store.get_extra_data(ignore_corrupt_chunks=ignore_corrupt_chunks)
    if table is None:
        return None
    return [[name, str(table[name].dtype), table[name].tolist()] for name in table.columns]


def samplerate(package: Any, path: str) -> float:
    """What `get_extra_data_samplerate` gives."""
    with _opened(package, path) as store:
        return float(store.get_extra_data_samplerate())


def record(
    package: Any,
    path: str,
    format: str,
    images: str,
    steps: Sequence[Call],
    imgshape: Sequence[int] | None = None,
    **options: Any,
) -> None:
    """Write a recording.

    A step is ``["add_image", {"image": which of the images, "frame_number": ..., "frame_time": ...}]``
    or another method of the writer with its arguments.
    """
    frames = np.load(images)
    shape = tuple(imgshape or frames.shape[1:])
    with package.new_for_format(
        format, path=path, imgshape=shape, imgdtype=frames.dtype, **options
    ) as store:
        for method, arguments in steps:
            given = dict(arguments)
            if method == "add_image":
                given["img"] = frames[given.pop("image")]
            getattr(store, method)(**given)


def leave_open(package: Any, path: str, format: str, images: str) -> None:
    """Write a recording, with extra data, in a process that ends before it closes it."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        frames = np.load(images)
        store = package.new_for_format(
            format, path=path, imgshape=frames.shape[1:], imgdtype=frames.dtype, chunksize=4
        )
        for i, image in enumerate(frames):
            store.add_image(image, i, i / 25)
            store.add_extra_data(a=i)
        # imgstore buffers them; a longer recording would have them on storage.
        store._extra_data_fp.flush()
    finally:
        os._exit(0)


def save_index(package: Any, path: str, destination: str) -> None:
    """Write the index as SQLite."""
    with _opened(package, path) as store:
        store.save_index(destination)


def reindex(package: Any, path: str) -> None:
    """Renumber a recording."""
    with _opened(package, path) as store:
        store.reindex()


def tell(package: Any, path: str, questions: Sequence[Sequence[Any]], read: int = 0) -> list[Any]:
    """What a store says when some images have been read.

    A question is the name of an attribute, or of a method and its arguments.
    """
    with _opened(package, path) as store:
        for _ in range(read):
            store.get_next_image()
        return [_answer(store, *question) for question in questions]


def _answer(store: Any, name: str, *arguments: Any) -> Any:
    value = getattr(store, name)
    return value(*arguments) if callable(value) else value


def tell_while_writing(
    package: Any,
    path: str,
    format: str,
    images: str,
    steps: Sequence[Call],
    questions: Sequence[Sequence[Any]],
    **options: Any,
) -> list[list[Any]]:
    """What a writer says after each step; see `record` and `tell`."""
    frames = np.load(images)
    answers = []
    with package.new_for_format(
        format, path=path, imgshape=frames.shape[1:], imgdtype=frames.dtype, **options
    ) as store:
        for method, arguments in steps:
            given = dict(arguments)
            if method == "add_image":
                given["img"] = frames[given.pop("image")]
            getattr(store, method)(**given)
            answers.append([_answer(store, *question) for question in questions])
    return answers


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        describe,
        perform,
        only_frames,
        save_frames,
        extra_data,
        samplerate,
        record,
        leave_open,
        reindex,
        save_index,
        tell,
        tell_while_writing,
    )
}


def _serve(package: str) -> None:
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable()
    imported = importlib.import_module(package)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = {"result": FUNCTIONS[question["do"]](imported, **question["with"])}
        except Exception as error:  # noqa: BLE001 - it is raised again on the other side
            answer = {"raised": _raised(error)}
        answers.write(json.dumps(answer, default=str) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve("imgstore")
