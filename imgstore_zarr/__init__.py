"""A home for scientific video: recordings as Zarr v3 groups, and as Motif and imgstore write them."""

import typing

from imgstore_zarr._version import __version__ as __version__

if typing.TYPE_CHECKING:
    from imgstore_zarr.public import *  # noqa: F403
    from imgstore_zarr.public import __all__ as __all__
else:
    # Loaded when a name is first asked for: a command that explains itself does not wait for NumPy.
    def __getattr__(name: str) -> object:
        names = globals()
        if name == "__all__" or not name.startswith("_"):
            names.update(_public_names())
        if name not in names:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return names[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *_public_names()})

    def _public_names() -> dict[str, object]:
        from importlib import import_module

        public = import_module(f"{__name__}.public")
        return {name: getattr(public, name) for name in ("__all__", *public.__all__)}
