"""``zarr.json``: written so that every Zarr reader opens the recording, read back with suspicion."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imgstore_zarr._version import __version__
from imgstore_zarr.errors import (
    InvalidMetadataError,
    RecordingNotFoundError,
    UnsupportedFormatError,
    UnsupportedVersionError,
)
from imgstore_zarr.native.codecs import (
    CRC32C_CODEC,
    ZSTD_CODEC,
    InnerCodec,
    bytes_codec,
    checksum,
)
from imgstore_zarr.native.nodes import (
    array_metadata,
    dump_json,
    group_metadata,
    parse_dtype,
    parse_shape,
)
from imgstore_zarr.native.shards import ShardGeometry
from imgstore_zarr.pixels import is_color
from imgstore_zarr.recording import (
    DEFAULT_SHARD_BYTES,
    RecordingInfo,
    RecordingSpec,
    json_metadata,
)
from imgstore_zarr.storage import Location, access_error

LAYOUT_VERSION = 1
GROUP_KEY = "zarr.json"
ATTRIBUTE = "imgstore_zarr"
COLUMN_CHUNK = 131072
"""Frames in a chunk of a coordinate: 1 MiB."""

CHECKSUMS = "checksums"
"""The attribute that holds the checksums of the other parts of ``zarr.json``."""

GENERATION = "generation"
"""The attribute that counts how often a recording was emptied or renumbered, if ever."""

ORIGINAL_NUMBERS = "frame_number_before_reindex"
SAMPLED = "sampled"

COMPRESSORS: Mapping[str, str | None] = {"raw/zarr": None, "lz4/zarr": "lz4", "zstd/zarr": "zstd"}

COLUMNS: Mapping[str, np.dtype[Any]] = {
    "frame_number": np.dtype("<i8"),
    "frame_time": np.dtype("<f8"),
}


def column_metadata(
    count: int, dtype: np.dtype[Any], dimension: str, attributes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the ``zarr.json`` of a coordinate or of a column of extra data."""
    return array_metadata(
        shape=(count,),
        chunk_shape=(COLUMN_CHUNK,),
        dtype=dtype,
        codecs=[bytes_codec(dtype.itemsize), ZSTD_CODEC, CRC32C_CODEC],
        dimension_names=(dimension,),
        fill_value="NaN" if dtype.kind == "f" else False if dtype.kind == "b" else 0,
        attributes=attributes,
    )


@dataclass(frozen=True)
class ZarrRecording:
    """What the ``zarr.json`` of a recording says.

    Attributes
    ----------
    info
        The recording.
    geometry
        Its shards.
    frame_count
        Frames that are committed.
    attributes
        The group's attributes.
    extra
        Per column of extra data the metadata of its array; empty where there is none.
    sampled
        By key, the metadata of the group ``sampled`` and of all in it; empty where there is none.
    renumbered
        Whether the numbers that frames had before a reindex are kept beside the new ones.
    changed
        Parts of ``zarr.json`` that are not as they were written: ``arrays``, ``user_metadata``.
    """

    info: RecordingInfo
    geometry: ShardGeometry
    frame_count: int
    attributes: Mapping[str, Any]
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sampled: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    renumbered: bool = False
    changed: tuple[str, ...] = ()

    def keeps_frames_of(self, later: ZarrRecording) -> bool:
        """Whether what is known of the frames here is still true of them."""
        return (self.info.uuid, self.geometry, self._generation) == (
            later.info.uuid,
            later.geometry,
            later._generation,
        )

    @property
    def _generation(self) -> Any:
        return self.attributes[ATTRIBUTE].get(GENERATION, 0)

    def emptied(self) -> ZarrRecording:
        """Return the recording as one whose frames are others than before."""
        generation = self._generation + 1 if isinstance(self._generation, int) else 0
        ours = {**self.attributes[ATTRIBUTE], GENERATION: generation}
        return dataclasses.replace(self, attributes={**self.attributes, ATTRIBUTE: ours})

    @property
    def columns(self) -> Mapping[str, np.dtype[Any]]:
        """The coordinates that have a value per frame."""
        kept = {ORIGINAL_NUMBERS: COLUMNS["frame_number"]} if self.renumbered else {}
        return {**COLUMNS, **kept}

    def documents(self, frame_count: int, extra: Mapping[str, Any]) -> dict[str, bytes]:
        """Return every ``zarr.json``, the group's (the commit record) last.

        Parameters
        ----------
        frame_count
            Frames to commit.
        extra
            Per column of extra data the metadata of its array.
        """
        geometry = self.geometry
        channel = ("channel",) if len(geometry.image_shape) == 3 else ()
        nodes: dict[str, dict[str, Any]] = {
            "image": array_metadata(
                shape=(frame_count, *geometry.image_shape),
                chunk_shape=geometry.shard_shape,
                dtype=geometry.dtype,
                codecs=geometry.codecs_metadata(),
                dimension_names=("frame", "y", "x", *channel),
            )
        }
        for name, dtype in self.columns.items():
            units = {"units": "s"} if name == "frame_time" else {}
            nodes[name] = column_metadata(frame_count, dtype, "frame", units)
        if extra:
            nodes["extra"] = group_metadata({})
            nodes |= {f"extra/{name}": dict(document) for name, document in extra.items()}
        nodes |= {key: dict(document) for key, document in self.sampled.items()}
        documents = {f"{key}/zarr.json": dump_json(node) for key, node in nodes.items()}
        group = group_metadata(self.attributes, nodes)
        group["attributes"][ATTRIBUTE] = {**group["attributes"][ATTRIBUTE], CHECKSUMS: _sums(group)}
        documents[GROUP_KEY] = dump_json(group)
        return documents


def _sums(document: Mapping[str, Any]) -> dict[str, str]:
    """The CRC-32C of each part of the group's ``zarr.json``, as sorted JSON without spaces."""
    attributes = document["attributes"]
    ours = {key: value for key, value in attributes[ATTRIBUTE].items() if key != CHECKSUMS}
    arrays = document.get("consolidated_metadata")
    if isinstance(arrays, dict):
        arrays = {**arrays, "metadata": without_consolidated(arrays.get("metadata"))}
    parts = {
        "recording": [ours, attributes.get("coordinates")],
        "arrays": arrays,
        "user_metadata": attributes.get("user_metadata"),
    }
    return {
        part: f"{checksum(json.dumps(value, sort_keys=True, separators=(',', ':')).encode()):08x}"
        for part, value in parts.items()
    }


def without_consolidated(nodes: Any) -> Any:
    """Return nodes without the empty member that zarr-python gives to groups inside of a group."""
    if not isinstance(nodes, dict):
        return nodes
    return {
        name: {key: value for key, value in node.items() if key != "consolidated_metadata"}
        if isinstance(node, dict)
        else node
        for name, node in nodes.items()
    }


def from_spec(name: str, spec: RecordingSpec, stored_shape: tuple[int, ...]) -> ZarrRecording:
    """Return the recording that a spec asks for."""
    spec = dataclasses.replace(spec, metadata=json_metadata(spec.metadata))
    inner = (1, *stored_shape) if spec.inner_chunks is None else spec.inner_chunks
    stored_dtype = spec.imgdtype.newbyteorder("<")
    codec = InnerCodec(COMPRESSORS[spec.format], stored_dtype.itemsize)
    chunksize = spec.chunksize or _default_chunksize(stored_shape, stored_dtype, inner[0])
    geometry = ShardGeometry(stored_shape, stored_dtype, chunksize, inner, codec)
    converted = spec.requested_format.endswith("+color")
    info = spec.info(
        name=name,
        layout="zarr",
        stored_shape=stored_shape,
        imgshape=stored_shape if converted else None,
        encoding=None if converted else spec.encoding,
        chunksize=chunksize,
        lossless=_keeps_pixels(spec.imgshape, stored_shape),
    )
    attributes = {
        ATTRIBUTE: {
            "layout": LAYOUT_VERSION,
            "uuid": spec.uuid,
            "created_utc": spec.created.astimezone(dt.UTC).replace(tzinfo=None).isoformat(),
            "timezone_local": str(spec.timezone),
            "format": spec.format,
            "encoding": info.encoding,
            "imgshape": list(info.imgshape),
            "imgdtype": spec.imgdtype.name,
            "chunksize": chunksize,
            "writer": f"imgstore-zarr {__version__}",
        },
        "user_metadata": dict(spec.metadata),
        "coordinates": " ".join(COLUMNS),
    }
    return ZarrRecording(info, geometry, 0, attributes)


def _keeps_pixels(imgshape: tuple[int, ...], stored_shape: tuple[int, ...]) -> bool:
    """False for colour that is stored as gray (``pgm``)."""
    return not (is_color(imgshape) and len(stored_shape) == 2)


def _default_chunksize(shape: tuple[int, ...], dtype: np.dtype[Any], group: int) -> int:
    frame_bytes = int(np.prod(shape)) * dtype.itemsize
    return max(1, DEFAULT_SHARD_BYTES // (frame_bytes * group)) * group


def read_group(location: Location) -> bytes:
    """Return the ``zarr.json`` of a recording.

    Raises
    ------
    RecordingAccessError
        It cannot be read.
    """
    try:
        return location.read(GROUP_KEY)
    except OSError as error:
        raise access_error(location, "reading", error) from error


def parse(name: str, text: bytes) -> ZarrRecording:
    """Read the ``zarr.json`` of a recording.

    Raises
    ------
    RecordingNotFoundError
        A Zarr group, but no recording.
    UnsupportedVersionError
        A layout number that is not known.
    InvalidMetadataError
        Arrays that are missing or of different lengths, or values that make no sense.
    UnsupportedFormatError
        Codecs that another program chose and that are not read here.
    """
    try:
        document = json.loads(text)
        attributes = document["attributes"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidMetadataError(
            f"{name}: zarr.json is damaged or no Zarr v3 metadata ({type(error).__name__}: {error})"
        ) from error
    ours = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(ours, dict):
        raise RecordingNotFoundError(
            f"{name} holds a Zarr {document.get('node_type', 'node')}, but no recording: "
            f"its zarr.json has no attribute {ATTRIBUTE!r}; open it with zarr or xarray.open_zarr"
        )
    if ours.get("layout") != LAYOUT_VERSION:
        raise UnsupportedVersionError(
            f"{name} has layout {ours.get('layout')!r}; this version of imgstore-zarr "
            f"({__version__}) reads layout {LAYOUT_VERSION}; it was written by "
            f"{ours.get('writer')!r}, so install that version or a newer one"
        )
    changed = _changed(name, document, ours)
    try:
        nodes = document["consolidated_metadata"]["metadata"]
        missing = [key for key in ("image", *COLUMNS) if key not in nodes]
    except (KeyError, TypeError) as error:
        raise InvalidMetadataError(
            f"{name}: zarr.json has no consolidated metadata, which is the commit record of a "
            "recording"
        ) from error
    if missing:
        raise InvalidMetadataError(
            f"{name}: the arrays {', '.join(missing)} are missing in zarr.json"
        )
    try:
        return _recording(name, attributes, nodes, changed)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        if isinstance(error, InvalidMetadataError | UnsupportedFormatError):
            raise
        raise InvalidMetadataError(
            f"{name}: zarr.json is damaged ({type(error).__name__}: {error})"
        ) from error


def _changed(name: str, document: dict[str, Any], ours: dict[str, Any]) -> tuple[str, ...]:
    """Which parts are not as they were written; raises where a reader would be misled by that."""
    stored = ours.get(CHECKSUMS)
    if (document.get("zarr_format"), document.get("node_type")) != (3, "group"):
        raise InvalidMetadataError(f"{name}: zarr.json is not that of a Zarr v3 group")
    if stored is None:
        return ()
    sums = _sums(document)
    if not isinstance(stored, dict) or stored.get("recording") != sums["recording"]:
        raise InvalidMetadataError(
            f"{name}: the attribute {ATTRIBUTE!r} in zarr.json is not as it was written; restore "
            f"zarr.json from a backup, or, if it was edited on purpose, remove {CHECKSUMS!r} from it"
        )
    return tuple(part for part in sums if stored.get(part) != sums[part])


def _recording(
    name: str, attributes: dict[str, Any], nodes: dict[str, Any], changed: tuple[str, ...]
) -> ZarrRecording:
    ours = attributes[ATTRIBUTE]
    geometry, frame_count = _geometry(name, nodes["image"])
    lengths = {key: parse_shape(nodes[key]["shape"])[0] for key in ("image", *COLUMNS)}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise InvalidMetadataError(
            f"{name}: the arrays have different lengths ({listed}); "
            "`imgstore_zarr.repair` may find out which frames are whole"
        )
    for key, dtype in COLUMNS.items():
        expected = column_metadata(frame_count, dtype, "frame")
        for part in ("data_type", "chunk_grid", "codecs"):
            if nodes[key][part] != expected[part]:
                raise UnsupportedFormatError(
                    f"{name}: the {part} of {key} is {nodes[key][part]}, not {expected[part]}: "
                    "it was rewritten by another program; copy the recording with that"
                )
    imgshape = parse_shape(ours["imgshape"])
    if imgshape[:2] != geometry.image_shape[:2]:
        raise InvalidMetadataError(
            f"{name}: zarr.json gives images the shape {imgshape}, but stores {geometry.image_shape}"
        )
    if not isinstance(ours["encoding"], str | None):
        raise InvalidMetadataError(f"{name}: the encoding {ours['encoding']!r} is no name")
    info = RecordingInfo(
        name=name,
        layout="zarr",
        format=str(ours["format"]),
        imgshape=imgshape,
        stored_shape=geometry.image_shape,
        imgdtype=geometry.dtype.newbyteorder("="),
        encoding=ours["encoding"] or None,
        chunksize=geometry.chunksize,
        created=dt.datetime.fromisoformat(ours["created_utc"]).replace(tzinfo=dt.UTC),
        timezone=_timezone(ours["timezone_local"]),
        uuid=ours["uuid"],
        user_metadata=dict(attributes.get("user_metadata") or {}),
        lossless=_keeps_pixels(tuple(ours["imgshape"]), geometry.image_shape),
    )
    return ZarrRecording(
        info,
        geometry,
        frame_count,
        attributes,
        {key[6:]: node for key, node in nodes.items() if key.startswith("extra/")},
        {key: node for key, node in nodes.items() if key.split("/")[0] == SAMPLED},
        ORIGINAL_NUMBERS in nodes,
        changed,
    )


def _timezone(name: str) -> dt.tzinfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return dt.UTC


def _geometry(name: str, node: dict[str, Any]) -> tuple[ShardGeometry, int]:
    frame_count, *image_shape = parse_shape(node["shape"])
    dtype = parse_dtype(node["data_type"]).newbyteorder("<")
    shard_shape = parse_shape(node["chunk_grid"]["configuration"]["chunk_shape"])
    chunksize = shard_shape[0]
    if [codec["name"] for codec in node["codecs"]] != ["sharding_indexed"]:
        raise UnsupportedFormatError(
            f"{name}: the image array has no shards, as when a recording is served; open it with "
            "zarr or xarray.open_zarr"
        )
    configuration = node["codecs"][0]["configuration"]
    if chunksize < 1 or len(image_shape) not in (2, 3) or min(image_shape) < 1:
        raise InvalidMetadataError(
            f"{name}: an image array of shape {node['shape']} in chunks of {chunksize} frames "
            "cannot be"
        )
    blosc = [codec for codec in configuration["codecs"] if codec["name"] == "blosc"]
    codec = InnerCodec(blosc[0]["configuration"]["cname"] if blosc else None, dtype.itemsize)
    geometry = ShardGeometry(
        tuple(image_shape), dtype, chunksize, parse_shape(configuration["chunk_shape"]), codec
    )
    names = [codec["name"] for codec in configuration["codecs"]]
    orders = [
        (codec.get("configuration") or {}).get("endian", "little")
        for codec in (configuration["codecs"][0], configuration["index_codecs"][0])
    ]
    known = [["bytes", "crc32c"], ["bytes", "blosc", "crc32c"]]
    if (
        names not in known
        or configuration.get("index_location", "end") != "end"
        or [codec["name"] for codec in configuration["index_codecs"]] != ["bytes", "crc32c"]
        or orders != ["little", "little"]
        or shard_shape != geometry.shard_shape
        or node["chunk_key_encoding"]["name"] != "default"
        or (node["chunk_key_encoding"].get("configuration") or {}).get("separator", "/") != "/"
        or node.get("storage_transformers")
    ):
        raise UnsupportedFormatError(
            f"{name}: the image array has chunks or codecs that another program chose ({names}); "
            "read here are shards of whole frames, sharding_indexed with bytes, [blosc], crc32c; "
            "open it with zarr"
        )
    return geometry, frame_count
