"""The xarray engine: ``xarray.open_dataset`` and ``open_datatree`` with ``engine="imgstore"``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, ClassVar, Literal

import xarray as xr
from xarray.backends import BackendEntrypoint

from imgstore_zarr.errors import ImgStoreError
from imgstore_zarr.formats import find_layout
from imgstore_zarr.formats import open as open_recording
from imgstore_zarr.storage import is_far, locate
from imgstore_zarr.store import ImgStore


class ImgStoreBackend(BackendEntrypoint):
    """Opens recordings of every layout; nothing is decoded until it is asked for."""

    description = "Open recordings of imgstore-zarr, Motif and imgstore"
    url = "https://pypi.org/project/imgstore-zarr/"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "drop_variables",
        "index",
        "datetime",
        "storage_options",
    )
    supports_groups: ClassVar[bool] = True

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        index: Literal["frame_number", "frame_time"] | None = None,
        datetime: bool = False,
        storage_options: Mapping[str, Any] | None = None,
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
        storage_options
            Of a URL of object storage; see `imgstore_zarr.open`.
        """
        store = open_recording(filename_or_obj, storage_options=storage_options)
        dataset = store.to_xarray(index=index, datetime=datetime).to_dataset()
        dataset.set_close(store.close)
        return dataset.drop_vars(_names(drop_variables), errors="ignore")

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> xr.DataTree:
        """Open a recording with its extra data, as `ImgStore.to_datatree` gives them.

        Nothing is decoded, and of data that were sampled nothing is read, until it is asked for.
        Closing the tree closes the recording.

        With ``chunks={}``, blocks begin where chunks, shards or GOPs begin. ``chunks="auto"`` is
        refused by dask where a field of the extra data holds text, whose size it cannot tell.

        Parameters
        ----------
        filename_or_obj
            What `imgstore_zarr.open` takes.
        drop_variables
            Variables to leave out of every group.
        storage_options
            Of a URL of object storage; see `imgstore_zarr.open`.
        """
        store, groups = _open_groups(filename_or_obj, drop_variables, storage_options)
        tree = xr.DataTree.from_dict(groups)
        tree.set_close(store.close)
        return tree

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> dict[str, xr.Dataset]:
        """Open a recording with its extra data as one Dataset per group; see `open_datatree`.

        Closing the group ``/`` closes the recording; the others hold nothing open.
        """
        store, groups = _open_groups(filename_or_obj, drop_variables, storage_options)
        groups["/"].set_close(store.close)
        return groups

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether a layout recognises the location, and it has the ``metadata.yaml`` of a recording.

        Nothing is opened. Zarr groups of others have no such file, and are left to xarray's own engine;
        so is what lies elsewhere than on a disk, where guessing would take requests.
        """
        try:
            location = locate(filename_or_obj)
            if is_far(location):
                return False
            return location.exists("metadata.yaml") and find_layout(location) is not None
        except (ImgStoreError, OSError):
            return False


def _open_groups(
    location: Any,
    drop_variables: str | Iterable[str] | None,
    storage_options: Mapping[str, Any] | None,
) -> tuple[ImgStore, dict[str, xr.Dataset]]:
    """Open a recording, and return its groups by their paths; it is closed where that fails."""
    names = _names(drop_variables)
    store = open_recording(location, storage_options=storage_options)
    with ExitStack() as on_failure:
        on_failure.callback(store.close)
        groups = {
            node.path: node.to_dataset(inherit=False).drop_vars(names, errors="ignore")
            for node in store.to_datatree().subtree
        }
        on_failure.pop_all()
    return store, groups


def _names(drop_variables: str | Iterable[str] | None) -> list[str]:
    if drop_variables is None:
        return []
    return [drop_variables] if isinstance(drop_variables, str) else list(drop_variables)
