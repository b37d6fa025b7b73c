"""The Zarr layout: the hot path of this package, as docs/format.md specifies it."""

from imgstore_zarr.native.layout import LAYOUT, ZarrLayout

__all__ = ["LAYOUT", "ZarrLayout"]
