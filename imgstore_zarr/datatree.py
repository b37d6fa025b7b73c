"""Images and extra data together, as an ``xarray.DataTree``."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from imgstore_zarr.extra import ExtraData, HasSampledData, SampledData, SampledSource

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

# Names that no other group has: that of the records, and what the root has as variables.
_GROUPS = ("extra", "image", "frame_number", "frame_time", "time", "channel", "", ".", "..")

# A coordinate that every group inherits, which would take the place of a variable of its name.
_INHERITED = "channel"


def to_datatree(images: xr.DataArray, extra: ExtraData) -> xr.DataTree:
    """Return images at the root of a tree, records as its group ``extra``, and a group per dataset.

    Records of JSON and of the Zarr layout are read here. Of data that were sampled (Motif's HDF5
    files) nothing is read but what says how many samples there are: values and times are read when
    they are asked for, and from the chunks concerned alone.

    A ``/`` in a name becomes ``_``, and a name that something else has gets a ``_`` at its end.

    Parameters
    ----------
    images
        What `to_dataarray` gave, with no index along its frames: groups would inherit that.
    extra
        The extra data of the recording.

    Returns
    -------
    DataTree
        ``/`` holds ``image``. ``/extra`` holds a variable per field along ``record``; it is there
        where there are records. ``/<dataset>`` holds a variable per column along ``sample``. Where
        the recording says a rate, the group and each variable have it as the attribute
        ``samplerate``, with ``samplerate_units`` (Hz). Where it says when samples were taken, there
        is the coordinate ``time`` (float64, seconds on the clock of ``frame_time``).
    """
    import xarray as xr

    sampled = (
        extra.sampled() if isinstance(extra, HasSampledData) else SampledData(extra.read(), {})
    )
    tree: dict[str, xr.Dataset] = {"/": images.to_dataset()}
    records = _records(sampled.records)
    if records is not None:
        tree["/extra"] = records
    for group, name in _names(sampled.datasets, _GROUPS).items():
        tree[f"/{group}"] = _dataset(sampled.datasets[name])
    return xr.DataTree.from_dict(tree)


def _records(records: SampledSource | pd.DataFrame | None) -> xr.Dataset | None:
    import pandas as pd
    import xarray as xr

    taken = ("record", _INHERITED)
    if isinstance(records, pd.DataFrame):
        names = _names(records.columns, taken)
        table = records.set_axis(list(names), axis="columns").rename_axis("record")
        return xr.Dataset.from_dataframe(table)
    if records is None or not int(records.lengths.sum()):
        return None
    index = pd.RangeIndex(int(records.lengths.sum()), name="record")
    return _variables(records, "record", taken).assign_coords(record=index)


def _dataset(source: SampledSource) -> xr.Dataset:
    dataset = _variables(source, "sample", ("sample", "time", _INHERITED))
    if source.timed:
        time = _lazy(source, "sample", source.times, np.dtype(np.float64), {"units": "s"})
        dataset = dataset.assign_coords(time=time)
    return dataset.assign_attrs(_rate(source))


def _rate(source: SampledSource) -> dict[str, Any]:
    rate = source.samplerate
    return {} if rate is None else {"samplerate": rate, "samplerate_units": "Hz"}


def _variables(source: SampledSource, dim: str, taken: Collection[str]) -> xr.Dataset:
    """A variable per column of a source; nothing is read."""
    import xarray as xr

    return xr.Dataset(
        {
            name: _lazy(
                source, dim, partial(source.read, column), source.dtypes[column], _rate(source)
            )
            for name, column in _names(source.dtypes, taken).items()
        }
    )


def _lazy(
    source: SampledSource, dim: str, read: Any, dtype: np.dtype[Any], attributes: dict[str, Any]
) -> xr.Variable:
    import xarray as xr
    from xarray.core.indexing import LazilyIndexedArray

    from imgstore_zarr.sampled import SampledArray, block_lengths

    lazy = LazilyIndexedArray(SampledArray(read, int(source.lengths.sum()), dtype))
    variable = xr.Variable((dim,), lazy, attributes, fastpath=True)
    # The same for all of a group, so that its variables have the same blocks.
    size = max(8, *(of.itemsize for of in source.dtypes.values()))
    blocks = block_lengths(source.lengths.tolist(), size)
    variable.encoding = {"preferred_chunks": {dim: blocks}}
    return variable


def _names(fields: Iterable[Any], taken: Collection[str]) -> dict[str, Any]:
    """From the name in the tree to the field's own."""
    fields = list(fields)
    names: dict[str, Any] = {}
    for field in fields:
        name = str(field).replace("/", "_")
        while name in taken or (name != field and (name in names or name in fields)):
            name += "_"
        names[name] = field
    return names
