"""A test kit for layouts: inherit a class, say what a recording holds, and it is tested.

Needs what ``pip install 'imgstore-zarr[test]'`` installs. A layout that reads::

    from imgstore_zarr.testing import Example, LayoutTests

    class TestMyLayout(LayoutTests):
        def recording(self, directory):
            ...  # make one below `directory`, without this package
            return Example(location, images, numbers, times)

A layout that writes exactly what it is given needs no more than::

    class TestMyFormat(WritableLayoutTests):
        format = "mine/zarr"
        imgshape = (12, 17, 3)

``pytest.register_assert_rewrite("imgstore_zarr.testing")`` in a ``conftest.py`` makes pytest explain
what fails in here.
"""

from imgstore_zarr.testing.example import INDICES, Example
from imgstore_zarr.testing.reading import LayoutTests
from imgstore_zarr.testing.writing import WritableLayoutTests

__all__ = ["INDICES", "Example", "LayoutTests", "WritableLayoutTests"]
