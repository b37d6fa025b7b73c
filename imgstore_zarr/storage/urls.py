"""URLs of object storage, and the options that they need."""

from __future__ import annotations

import base64
import datetime as dt
import os
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from imgstore_zarr.bounded_cache import BoundedCache
from imgstore_zarr.errors import (
    MissingDependencyError,
    RecordingAccessError,
    UnsupportedFormatError,
)
from imgstore_zarr.storage.object_store import ObjectStore
from imgstore_zarr.storage.requests import without_secrets

_S3, _GCS, _AZURE, _WEB = (
    ("s3", "s3a"),
    ("gs", "gcs"),
    ("az", "azure", "adl", "abfs", "abfss"),
    ("http", "https"),
)

SCHEMES = (*_S3, *_GCS, *_AZURE, *_WEB, "memory")
"""What URLs of object storage begin with."""

# What fsspec calls things, and what obstore does.
_SPELLINGS = {
    _S3: {
        "key": "access_key_id",
        "secret": "secret_access_key",
        "token": "session_token",
        "anon": "skip_signature",
        "endpoint_url": "endpoint",
        "region_name": "region",
    },
    _GCS: {"token": "service_account", "anon": "skip_signature", "endpoint_url": "base_url"},
    _AZURE: {"sas_token": "sas_key", "anon": "skip_signature", "credential": "account_key"},
    _WEB: {},
}

# obstore.store.ClientConfig: how requests are made, whatever is asked for.
_CLIENT = frozenset(
    {
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "default_headers",
        "proxy_url",
        "proxy_ca_certificate",
        "proxy_excludes",
        "read_timeout",
        "root_certificate",
        "timeout",
        "user_agent",
    }
)

_RETRIES = {
    "max_retries": 10,
    "retry_timeout": dt.timedelta(seconds=60),
    "backoff": {
        "init_backoff": dt.timedelta(seconds=0.1),
        "max_backoff": dt.timedelta(seconds=10),
        "base": 2,
    },
}
_PATIENCE = {"connect_timeout": "5s", "timeout": "300s"}

# A machine of Amazon's tells its credentials here; others do not answer.
_METADATA_SERVICE = ("169.254.169.254", 80)
_AMAZON_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")
_CONTAINER = "AWS_CONTAINER_CREDENTIALS_"
_MISSING = re.compile(r"Missing (Access|Secret)")

_ENDPOINTS = ("endpoint", "endpoint_url", "base_url")
_ENDPOINT_NAMES = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
)

_memories: dict[str, Any] = {}


def object_store(url: str, options: Mapping[str, Any]) -> ObjectStore:
    """Return the place of a URL.

    Parameters
    ----------
    url
        ``s3://bucket/key``, ``gs://``, ``az://container/key``, ``http://``, ``https://`` or
        ``memory://``.
    options
        Names of obstore's configuration of that service (``endpoint``, ``region``,
        ``access_key_id``, ...), of its client (``allow_http``, ``timeout``, ...), or
        ``retry_config``; fsspec's common names are understood. What is not given comes from the
        environment. ``cache_bytes`` keeps so much of what is read of objects in memory.

    Raises
    ------
    MissingDependencyError
        obstore is not installed.
    UnsupportedFormatError
        A name that is not known.
    RecordingAccessError
        There are no credentials.
    """
    stores = _obstore()
    parts = _split(url)
    key = unquote(parts.path).strip("/")
    if parts.scheme == "memory":
        _refuse(url, options)
        # One for all, as long as the process runs.
        store = _memories.setdefault(parts.netloc, stores.MemoryStore())
        return InMemory(store, key, url)
    shown = _shown(parts)
    options = dict(options)
    cache = _cache(shown, options.pop("cache_bytes", None))
    try:
        config, client, retries = _sorted(parts.scheme, options)
        _check_endpoints(config)
        if any(address.startswith("http://") for address in (url, *_endpoints(config))):
            client.setdefault("allow_http", True)
        settings: dict[str, Any] = {"client_options": _PATIENCE | client, "retry_config": retries}
        if parts.scheme in _WEB:
            root, headers = _web_root(url)
            if headers:
                settings["client_options"].setdefault("default_headers", headers)
            store = stores.HTTPStore.from_url(root, **settings)
        elif parts.scheme in _S3:
            _check_amazon(shown, config)
            store = stores.S3Store(parts.netloc, config=config, **settings)
        elif parts.scheme in _GCS:
            store = stores.GCSStore(parts.netloc, config=config, **settings)
        else:
            # abfs://container@account.dfs.core.windows.net/key says more than the container.
            long = parts.username is not None
            container = parts.username if long else parts.netloc
            if long:
                config.setdefault("account_name", (parts.hostname or "").partition(".")[0])
                shown = f"{parts.scheme}://{parts.netloc}{parts.path}"
            store = stores.AzureStore(container, config=config, **settings)
    except (ValueError, TypeError, _failure()) as error:
        if _MISSING.search(str(error)):
            raise _no_credentials(shown) from None
        raise UnsupportedFormatError(_explained(shown, error, options)) from None
    return ObjectStore(store, key, shown, cache=cache)


def _split(url: str) -> SplitResult:
    """Split a URL that can name an object: no query, where secrets may be, and no part gets lost."""
    bare, query, _ = url.partition("?")
    # A letter like others, as in a path.
    parts = urlsplit(bare.replace("#", "%23"))
    key = unquote(parts.path).strip("/")
    reason = ""
    if query:
        reason = (
            "a location has no query: write a ? in its name as %3F, and give what signs requests as "
            "storage_options (Azure: sas_key)"
        )
    elif not parts.netloc and parts.scheme != "memory":
        reason = f"it names no bucket or server: {parts.scheme}://bucket/key"
    elif not {"", ".", ".."}.isdisjoint(key.split("/") if key else ()):
        reason = "no part of the name may be empty (//), '.' or '..'; leave it out"
    elif any(ord(letter) < 32 for letter in bare + key):
        reason = "there are control characters in it"
    if reason:
        raise UnsupportedFormatError(f"{_shown(parts)}: {reason}")
    return parts


def _shown(parts: SplitResult) -> str:
    """The URL for messages: without the password."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _cache(shown: str, limit: Any) -> BoundedCache[bytes] | None:
    if limit is None:
        return None
    try:
        return BoundedCache(int(limit))
    except (TypeError, ValueError):
        raise UnsupportedFormatError(
            f"{shown}: cache_bytes must be a number of bytes, not {limit!r}"
        ) from None


class InMemory(ObjectStore):
    """Memory of this process, which is found again by its name."""

    def __reduce__(self) -> tuple[Any, ...]:
        return object_store, (self.url, {})


def _obstore() -> Any:
    try:
        import obstore.store
    except ImportError as error:
        raise MissingDependencyError(
            "object storage needs obstore: pip install 'imgstore-zarr[cloud]'"
        ) from error
    return obstore.store


def _failure() -> type[Exception]:
    from obstore.exceptions import BaseError

    return BaseError


def _sorted(
    scheme: str, options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Sort options: those of the service, of the client, and how often to try again."""
    options = dict(options)
    retries = {**_RETRIES, **dict(options.pop("retry_config", None) or {})}
    if unknown := retries.keys() - _RETRIES.keys():
        raise ValueError(f"no option {', '.join(map(repr, sorted(unknown)))} of retry_config")
    client = dict(options.pop("client_options", None) or {})
    # botocore's options, as s3fs hands them on.
    options = {**dict(options.pop("client_kwargs", None) or {}), **options}
    if "use_ssl" in options:
        client["allow_http"] = not options.pop("use_ssl")
    options |= _connection_string(options.pop("connection_string", None))
    spellings = next(names for schemes, names in _SPELLINGS.items() if scheme in schemes)
    config = {}
    for name, value in options.items():
        if name in _CLIENT:
            client[name] = value
        elif value is not None:
            config[spellings.get(name, name)] = value
    if config.get("service_account") == "anon":
        del config["service_account"]
        config["skip_signature"] = True
    if scheme in _WEB and config:
        raise ValueError(f"no option {', '.join(map(repr, config))} of a web server")
    return config, client, retries


def _connection_string(text: str | None) -> dict[str, str]:
    """What the connection string of an Azure account says."""
    if text is None:
        return {}
    names = {
        "AccountName": "account_name",
        "AccountKey": "account_key",
        "BlobEndpoint": "endpoint",
        "SharedAccessSignature": "sas_key",
    }
    pairs = (part.partition("=")[::2] for part in text.split(";") if part)
    return {names[name]: value for name, value in pairs if name in names}


def _endpoints(config: Mapping[str, Any]) -> list[str]:
    """The addresses of the service that are given, as an option or by the environment."""
    said = [str(value) for name, value in config.items() if name.lower().endswith(_ENDPOINTS)]
    return said or [os.environ[name] for name in _ENDPOINT_NAMES if name in os.environ]


def _check_endpoints(config: Mapping[str, Any]) -> None:
    """Refuse what is no address: obstore does not live through some of it."""
    for address in _endpoints(config):
        parts = urlsplit(address)
        if parts.scheme not in _WEB or not parts.hostname or re.search(r"[\s<>\"{}|\\^`]", address):
            raise ValueError(
                f"the endpoint {without_secrets(address)!r} is no address such as https://example.org:9000"
            )


def _web_root(url: str) -> tuple[str, dict[str, str]]:
    """The address of a web server, and what tells it who asks."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    headers = {}
    if user:
        token = base64.b64encode(unquote(user).encode()).decode()
        headers["authorization"] = f"Basic {token}"
    return urlunsplit((parts.scheme, host, "", "", "")), headers


def _check_amazon(shown: str, config: Mapping[str, Any]) -> None:
    """Say that there are no credentials, before a service is asked for them that is not there."""
    names = {name.removeprefix("aws_") for name in map(str.lower, config)}
    known = {"access_key_id", "skip_signature", "web_identity_token_file", "metadata_endpoint"}
    given = any(name in known or name.startswith("container_") for name in names)
    told = any(name in os.environ for name in _AMAZON_NAMES)
    if given or told or any(name.startswith(_CONTAINER) for name in os.environ):
        return
    try:
        socket.create_connection(_METADATA_SERVICE, timeout=1).close()
    except OSError:
        raise _no_credentials(shown) from None


def _no_credentials(shown: str) -> RecordingAccessError:
    return RecordingAccessError(
        f"{shown}: there are no credentials, or not all; set access_key_id and secret_access_key in "
        "storage_options, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment (profiles "
        "in ~/.aws are not read); or skip_signature=True for a public bucket"
    )


def _refuse(url: str, options: Mapping[str, Any]) -> None:
    if options:
        raise UnsupportedFormatError(f"{url} takes no storage_options, got {', '.join(options)}")


def _explained(shown: str, error: Exception, options: Mapping[str, Any]) -> str:
    # Values may be secrets, and obstore may repeat them.
    text = str(error).partition("\n")[0]
    for value in options.values():
        if isinstance(value, str) and len(value) > 3:
            text = text.replace(value, "...")
    return f"{shown}: the storage_options {', '.join(options)} are not understood: {text}"
