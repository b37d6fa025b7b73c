"""cached_property: computed once for an instance, and safe where another thread forks."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 12):
    from functools import cached_property
else:
    from collections.abc import Callable
    from typing import Any, Generic, TypeVar, overload

    _T = TypeVar("_T")

    class cached_property(Generic[_T]):  # noqa: N801 - the name that it has in functools
        """That of Python 3.12, which holds no lock.

        The one of 3.11 has a lock for all instances of a class. A process that is forked while another
        thread holds it would wait for ever.
        """

        def __init__(self, compute: Callable[[Any], _T]) -> None:
            self._compute = compute
            self.__doc__ = compute.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        @overload
        def __get__(self, instance: None, owner: type) -> cached_property[_T]: ...

        @overload
        def __get__(self, instance: object, owner: type) -> _T: ...

        def __get__(self, instance: object | None, owner: type) -> cached_property[_T] | _T:
            if instance is None:
                return self
            value = self._compute(instance)
            # From now on found before this; of two threads that compute it the first one counts.
            found: _T = instance.__dict__.setdefault(self._name, value)
            return found


__all__ = ["cached_property"]
