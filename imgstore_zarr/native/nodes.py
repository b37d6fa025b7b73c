"""``zarr.json`` of arrays and groups, as every Zarr v3 hierarchy has them."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np


def parse_dtype(name: Any) -> np.dtype[Any]:
    """Return the dtype of a Zarr data type that is written here; ValueError for any other."""
    dtype: np.dtype[Any] = np.dtype(name)
    if name != dtype.name or dtype.kind not in "iufb" or dtype.itemsize > 8:
        raise ValueError(f"the data type {name!r}")
    return dtype


def parse_shape(sizes: Any) -> tuple[int, ...]:
    """Return a shape as ``zarr.json`` gives it; ValueError or TypeError where it is none."""
    shape = tuple(operator.index(size) for size in sizes)
    if min(shape, default=0) < 0:
        raise ValueError(f"the shape {shape}")
    return shape


def dump_json(document: Mapping[str, Any]) -> bytes:
    """Return a metadata document as UTF-8."""
    return json.dumps(document, indent=2, allow_nan=False).encode()


def array_metadata(
    *,
    shape: tuple[int, ...],
    chunk_shape: tuple[int, ...],
    dtype: np.dtype[Any],
    codecs: list[dict[str, Any]],
    dimension_names: tuple[str, ...],
    fill_value: Any = 0,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the ``zarr.json`` of an array."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value,
        "codecs": codecs,
        "attributes": dict(attributes or {}),
        "dimension_names": list(dimension_names),
        "storage_transformers": [],
    }


def group_metadata(
    attributes: Mapping[str, Any], members: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group, with its members' metadata inline where given."""
    document: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(attributes),
    }
    if members is not None:
        document["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": dict(members),
        }
    return document
