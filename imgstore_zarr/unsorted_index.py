"""UnsortedIndex: what ``.sel`` looks up where frame numbers or times repeat, or go back."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from xarray.core.indexing import IndexSelResult
from xarray.indexes import PandasIndex

from imgstore_zarr.cached import cached_property
from imgstore_zarr.errors import FrameNotFoundError

_SHOWN = 5


class UnsortedIndex(PandasIndex):
    """Finds the first frame in recording order, with ``method``; refuses to guess without.

    pandas, behind xarray's own index, has no ``method`` for such values.
    """

    @cached_property
    def _sorted(self) -> tuple[PandasIndex, NDArray[np.intp], NDArray[np.intp]]:
        """The values in their order, once each; where the first of each is; and how many there are."""
        values = self.index.to_numpy()
        known = np.flatnonzero(values == values)  # NaN is not
        unique, first, counts = np.unique(values[known], return_index=True, return_counts=True)
        return PandasIndex(pd.Index(unique, name=self.index.name), self.dim), known[first], counts

    def sel(
        self, labels: dict[Any, Any], method: str | None = None, tolerance: Any = None
    ) -> IndexSelResult:
        """Look up labels, as xarray asks for it.

        Raises
        ------
        FrameNotFoundError
            There is no such frame, or there are several and no method says that the first is wanted;
            or a slice of values that go back.
        """
        ((name, label),) = labels.items()
        if isinstance(label, slice):
            self._check_sorted(name)
            return super().sel(labels, method, tolerance)
        plain, first, counts = self._sorted
        try:
            found: Any = plain.sel(labels, method, tolerance).dim_indexers[self.dim]
        except KeyError as error:
            span = f"{plain.index.min()} to {plain.index.max()}" if len(plain.index) else "none"
            raise FrameNotFoundError(
                f"not every frame that was asked for is there: the frames have {name} from {span}; "
                "method='nearest' gives the nearest, tolerance= says how near it must be"
            ) from error
        places: NDArray[np.intp] = np.asarray(getattr(found, "data", found))
        if places.dtype.kind == "b":
            return super().sel(labels, method, tolerance)
        several = np.atleast_1d(places)[np.atleast_1d(counts[places] > 1)]
        if method is None and len(several):
            self._refuse(name, plain.index[int(several.flat[0])])
        chosen: Any = first[places]
        if hasattr(found, "dims"):
            chosen = found.copy(data=chosen)
        return IndexSelResult({self.dim: int(chosen) if np.ndim(chosen) == 0 else chosen})

    def _refuse(self, name: Hashable, value: Any) -> None:
        places = np.flatnonzero(self.index.to_numpy() == value)
        more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
        shown = ", ".join(map(str, places[:_SHOWN].tolist()))
        raise FrameNotFoundError(
            f"{len(places)} frames have the {name} {value}, at positions {shown}{more}; "
            "method='nearest' gives the first of them, .isel(frame=...) any"
        )

    def _check_sorted(self, name: Hashable) -> None:
        values = self.index.to_numpy()
        back = np.flatnonzero(~(values[1:] >= values[:-1]))
        if len(back):
            at = int(back[0])
            raise FrameNotFoundError(
                f"{name} is not in order: after {values[at]} at position {at} follows "
                f"{values[at + 1]}{f', and {len(back) - 1} more such places' if len(back) > 1 else ''}; "
                f"so there is no slice of it. Single values are found with method='nearest', and "
                f"array.isel(frame=((array.{name} >= start) & (array.{name} < stop)).values) gives all "
                "between two"
            )
