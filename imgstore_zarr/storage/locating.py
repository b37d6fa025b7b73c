"""From what users give to the place that they mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from imgstore_zarr.errors import UnsupportedFormatError
from imgstore_zarr.storage.directory import Directory
from imgstore_zarr.storage.icechunk_branch import IcechunkBranch
from imgstore_zarr.storage.location import METADATA_FILES, Location
from imgstore_zarr.storage.object_store import ObjectStore, in_url
from imgstore_zarr.storage.urls import SCHEMES, object_store
from imgstore_zarr.storage.zarr_store import ZarrStore, opened

if TYPE_CHECKING:
    from zarr.abc.store import Store

_LOCATION_METHODS = ("name", "path", "read", "write", "open", "exists", "names", "delete")


def locate(location: object, storage_options: Mapping[str, Any] | None = None) -> Location:
    """Return where a recording lies.

    Parameters
    ----------
    location
        A path; a URL (``s3://``, ``gs://``, ``az://``, ``http://``, ``https://``, ``file://``,
        ``memory://``); a ``metadata.yaml`` or ``zarr.json`` inside a recording, by either; an obstore
        store; any ``zarr.abc.store.Store``; a ``upath.UPath``; or a `Location`, which is returned as
        it is.
    storage_options
        For URLs: credentials and the like, by obstore's names or fsspec's; see `object_store`.

    Raises
    ------
    UnsupportedFormatError
        A kind of location that is not known, or options that it does not take.
    MissingDependencyError
        obstore is needed, and not installed.
    """
    options = dict(storage_options or {})
    if _is_upath(location):
        given: Any = location
        location, options = _of_upath(given, options)
    if isinstance(location, str) and "://" in location:
        scheme = urlsplit(location).scheme.lower()
        if scheme in SCHEMES:
            return object_store(_without_file(location), options)
        if scheme != "file":
            raise UnsupportedFormatError(
                f"locations of the kind {scheme}:// are not opened by their URL; known are "
                f"{', '.join(name + '://' for name in (*SCHEMES, 'file'))}; any other place can be "
                f"given as a Zarr store: zarr.storage.FsspecStore.from_url({location!r}, read_only=True)"
            )
        location = unquote(urlsplit(location.replace("?", "%3F").replace("#", "%23")).path)
    if options:
        raise UnsupportedFormatError(
            f"storage_options are for URLs of object storage, not for {location!r}; leave them out"
        )
    return _of_path(location) or _of_store(location)


def locate_urls(
    storage_options: Mapping[str, Any] | None, *locations: object
) -> tuple[object, ...]:
    """Return several locations, with the options in those that are URLs of object storage.

    Raises
    ------
    UnsupportedFormatError
        There are options, and none of them is one.
    """
    far = [isinstance(one, str) and urlsplit(one).scheme.lower() in SCHEMES for one in locations]
    if storage_options and not any(far):
        raise UnsupportedFormatError(
            "storage_options are for URLs of object storage, of which none was given; leave them out"
        )
    pairs = zip(locations, far, strict=True)
    return tuple(locate(one, storage_options) if is_url else one for one, is_url in pairs)


def _of_path(location: object) -> Directory | None:
    if isinstance(location, bytes):
        location = os.fsdecode(location)
    if not isinstance(location, str | os.PathLike):
        return None
    if not os.fspath(location):
        raise UnsupportedFormatError("the location is an empty path")
    path = Path(location).expanduser()
    if path.name in METADATA_FILES:
        path = path.parent
    return Directory(Path(os.path.abspath(path)))  # noqa: PTH100 - keeps symbolic links


def _without_file(url: str) -> str:
    head, _, tail = url.rstrip("/").rpartition("/")
    return head if tail in METADATA_FILES else url


def _of_store(location: object) -> Location:
    if isinstance(location, Directory | ZarrStore | ObjectStore):
        return location
    # A store can only be given by somebody who has imported zarr, or obstore.
    zarr_store = sys.modules.get("zarr.abc.store")
    if zarr_store is not None and isinstance(location, zarr_store.Store):
        return _of_zarr(location)
    package = type(location).__module__.partition(".")[0]
    if package == "obstore":
        return _of_obstore(location)
    if package == "icechunk" and hasattr(location, "writable_session"):
        return IcechunkBranch(cast("Any", location))
    # Not isinstance: since Python 3.12 that does not see what a wrapper hands on by __getattr__.
    if all(hasattr(location, name) for name in _LOCATION_METHODS):
        return cast("Location", location)
    raise UnsupportedFormatError(
        f"{location!r} is no location: give a path, a URL, an obstore store or a zarr.abc.store.Store"
    )


def _of_zarr(store: Store) -> Location:
    """A store of which we know more than zarr does is handled by what it holds."""
    from zarr.storage import LocalStore
    from zarr.storage import ObjectStore as ZarrObjectStore

    if isinstance(store, LocalStore) and not store.read_only:
        return Directory(Path(os.path.abspath(store.root)))  # noqa: PTH100 - keeps symbolic links
    if type(store).__module__.partition(".")[0] == "icechunk" and not store.read_only:
        raise UnsupportedFormatError(
            "the store of a writable session of icechunk is no location, since who writes a recording "
            "commits, too; give the repository, or imgstore_zarr.storage.IcechunkBranch(repository, "
            "branch, group)"
        )
    if isinstance(store, ZarrObjectStore):
        return _of_obstore(store.store, read_only=store.read_only)
    return ZarrStore(opened(store))


def _of_obstore(store: Any, *, read_only: bool = False) -> Location:
    kind = type(store).__name__
    if kind == "LocalStore":
        if store.prefix is None:
            raise UnsupportedFormatError(
                "an obstore LocalStore without a prefix is the whole file system; give a path"
            )
        return Directory(Path(store.prefix))
    return ObjectStore(store, "", _url_of(store), read_only)


def _url_of(store: Any) -> str:
    """What to call a store in messages."""
    config: Mapping[str, Any] = getattr(store, "config", {}) or {}
    kind = type(store).__name__
    prefix = str(getattr(store, "prefix", None) or "").strip("/")
    bucket = str(config.get("bucket", config.get("container_name", "")))
    if kind == "HTTPStore":
        parts = urlsplit(str(store.url))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    schemes = {"S3Store": "s3", "GCSStore": "gs", "AzureStore": "az"}
    if kind not in schemes:
        return repr(store)
    return "/".join(part for part in (f"{schemes[kind]}://{bucket}", prefix) if part)


def _is_upath(location: object) -> bool:
    # Of the class: to ask a path for its `fs` would connect it, by another package.
    return all(hasattr(type(location), name) for name in ("storage_options", "protocol", "fs"))


def _of_upath(path: Any, options: dict[str, Any]) -> tuple[object, dict[str, Any]]:
    """The URL and the options of a ``upath.UPath``, or the Zarr store of one of another kind."""
    if path.protocol in ("", "file", "local"):
        return str(path.path), options
    if path.protocol in SCHEMES and path.protocol != "memory":
        # The path of a bucket is the key as it is, that of a web server is quoted already.
        url = str(path) if path.protocol in ("http", "https") else in_url(str(path))
        return url, {**path.storage_options, **options}
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(str(path), storage_options={**path.storage_options, **options}), {}
