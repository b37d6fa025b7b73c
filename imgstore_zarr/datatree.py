"""Images and extra data together, as an ``xarray.DataTree``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


def to_datatree(images: xr.DataArray, extra: pd.DataFrame | None) -> xr.DataTree:
    """Return images at the root of a tree, and extra data as its group ``extra``.

    Parameters
    ----------
    images
        What `to_dataarray` gave.
    extra
        One row per record, or None where there is none.
    """
    import xarray as xr

    tree: dict[str, xr.Dataset] = {"/": images.to_dataset()}
    if extra is not None:
        names: dict[str, str] = {}  # from that in the tree to the field's own
        for field in extra.columns:
            name = str(field).replace("/", "_")
            while name != field and (name in names or name in extra.columns):
                name += "_"
            names[name] = field
        table = extra.set_axis(list(names), axis="columns").rename_axis("record")
        tree["/extra"] = xr.Dataset.from_dataframe(table)
    return xr.DataTree.from_dict(tree)
