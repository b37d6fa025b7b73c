"""What `import imgstore_zarr` gives, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import imgstore_zarr
from imgstore_zarr import errors

BUILTINS: dict[type[errors.ImgStoreError], tuple[type[Exception], ...]] = {
    errors.FrameNotFoundError: (ValueError, KeyError),
    errors.EndOfRecordingError: (EOFError,),
    errors.RecordingNotFoundError: (ValueError, FileNotFoundError),
    errors.InvalidMetadataError: (ValueError,),
    errors.UnsupportedFormatError: (ValueError,),
    errors.UnsupportedVersionError: (ValueError,),
    errors.FrameMismatchError: (ValueError,),
    errors.ChunkMissingError: (OSError,),
    errors.CorruptChunkError: (OSError,),
    errors.RecordingExistsError: (FileExistsError,),
    errors.RecordingAccessError: (PermissionError,),
    errors.RecordingLockedError: (OSError,),
    errors.MissingDependencyError: (ImportError,),
}


def test_all_is_what_is_exported() -> None:
    exported = {
        name
        for name in dir(imgstore_zarr)
        if not name.startswith("_") and not isinstance(getattr(imgstore_zarr, name), ModuleType)
    }
    assert set(imgstore_zarr.__all__) == exported | {"__version__"}
    assert len(imgstore_zarr.__all__) == len(set(imgstore_zarr.__all__))


def test_everything_exported_is_documented() -> None:
    for name in set(imgstore_zarr.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(imgstore_zarr, name)), name


def test_the_names_of_imgstore_are_there() -> None:
    names = {"new_for_filename", "new_for_format", "extract_only_frame", "get_supported_formats"}
    assert names <= set(imgstore_zarr.__all__)


HEAVY = ["xarray", "dask", "av", "h5py", "pandas", "cv2", "zarr", "matplotlib"]

RECORD = """
import numpy, tempfile
with tempfile.TemporaryDirectory() as directory:
    with imgstore_zarr.create(directory + "/r", "zstd/zarr", (8, 9)) as writer:
        writer.add_image(numpy.zeros((8, 9), "uint8"), 0, 0.0)
        writer.add_extra_data(a=1)
    with imgstore_zarr.open(directory + "/r") as store:
        store.get_image(0), store.frames[:], store.report()
"""


@pytest.mark.parametrize("work", ["imgstore_zarr.open", RECORD], ids=["a name", "record and read"])
def test_nothing_heavy_is_loaded_before_it_is_used(work: str) -> None:
    script = f"import sys, imgstore_zarr\n{work}\n"
    script += f"print(*[m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def test_importing_alone_loads_nothing_but_the_version() -> None:
    script = (
        "import sys, imgstore_zarr; print(imgstore_zarr.__version__); "
        "print(*sorted(m for m in sys.modules if m.startswith('imgstore_zarr')), 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        imgstore_zarr.__version__,
        "imgstore_zarr imgstore_zarr._version False",
    ]


@pytest.mark.parametrize(
    "script",
    [
        "from imgstore_zarr import *; print(open.__module__)",
        "from imgstore_zarr import open, errors; print(open.__module__)",
        "import imgstore_zarr.cataloguing; print(imgstore_zarr.open.__module__)",
        "import imgstore_zarr; imgstore_zarr.storage.Location; print(imgstore_zarr.open.__module__)",
        "import imgstore_zarr; assert 'open' in dir(imgstore_zarr); print('imgstore_zarr.formats')",
        "import imgstore_zarr; imgstore_zarr.align; imgstore_zarr.catalogue.__call__; "
        "print('imgstore_zarr.formats')",
    ],
)
def test_names_are_there_however_they_are_asked_for(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("imgstore_zarr.formats", "")


def test_a_name_that_is_not_there() -> None:
    for name in ("opne", "_private", "__wrapped__"):
        with pytest.raises(
            AttributeError, match=f"module 'imgstore_zarr' has no attribute '{name}'"
        ):
            getattr(imgstore_zarr, name)


def test_every_error_is_in_the_table() -> None:
    assert set(errors.ImgStoreError.__subclasses__()) == set(BUILTINS)
    assert not any(error.__subclasses__() for error in BUILTINS)
    assert {error.__name__ for error in BUILTINS} | {"ImgStoreError"} <= set(imgstore_zarr.__all__)


@pytest.mark.parametrize("error", BUILTINS, ids=lambda error: error.__name__)
def test_errors_are_what_imgstore_raised(error: type[errors.ImgStoreError]) -> None:
    bases = tuple(base for base in error.__mro__[1:] if base in BUILTINS[error])
    assert set(bases) == set(BUILTINS[error])
    assert str(error("'chunk 3' is gone")) == "'chunk 3' is gone"
    for builtin in BUILTINS[error]:
        with pytest.raises(builtin, match="chunk 3"):
            raise error("chunk 3 is gone")
    # The tree that is drawn for readers is the one that exists.
    drawn = next(line for line in (errors.__doc__ or "").splitlines() if error.__name__ in line)
    names = drawn[drawn.index("(") + 1 : drawn.index(")")].split(", ")
    assert names == [builtin.__name__ for builtin in BUILTINS[error]]


def test_the_root_is_no_builtin_error() -> None:
    assert errors.ImgStoreError.__bases__ == (Exception,)
