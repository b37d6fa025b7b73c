"""The xarray engine: ``xarray.open_dataset(location, engine="imgstore")``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import xarray as xr
from xarray.backends import BackendEntrypoint

from imgstore_zarr.errors import ImgStoreError
from imgstore_zarr.formats import find_layout
from imgstore_zarr.formats import open as open_recording
from imgstore_zarr.storage import locate


class ImgStoreBackend(BackendEntrypoint):
    """Opens recordings of every layout; nothing is decoded until it is asked for."""

    description = "Open recordings of imgstore-zarr, Motif and imgstore"
    url = "https://pypi.org/project/imgstore-zarr/"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "drop_variables",
        "index",
        "datetime",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        index: Literal["frame_number", "frame_time"] | None = None,
        datetime: bool = False,
    ) -> xr.Dataset:
        """Open a recording as a Dataset with the variable ``image``.

        Parameters
        ----------
        filename_or_obj
            What `imgstore_zarr.open` takes.
        drop_variables
            Variables to leave out.
        index
            ``"frame_number"`` or ``"frame_time"``: what ``.sel`` looks up.
        datetime
            Add the coordinate ``time`` (datetime64[ns], UTC).
        """
        store = open_recording(filename_or_obj)
        dataset = store.to_xarray(index=index, datetime=datetime).to_dataset()
        dataset.set_close(store.close)
        if drop_variables is None:
            return dataset
        names = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables)
        return dataset.drop_vars(names, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether a layout recognises the location, and it has the ``metadata.yaml`` of a recording.

        Nothing is opened. Zarr groups of others have no such file, and are left to xarray's own engine.
        """
        try:
            location = locate(filename_or_obj)
            return location.exists("metadata.yaml") and find_layout(location) is not None
        except (ImgStoreError, OSError):
            return False
