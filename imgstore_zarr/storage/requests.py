"""Requests to object storage: what their failures mean, and many of them at once."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from imgstore_zarr.errors import ImgStoreError
from imgstore_zarr.interruption import Deferred
from imgstore_zarr.storage.location import Location

_T = TypeVar("_T")
_R = TypeVar("_R")

CONCURRENT = 32
"""How many requests this process makes at the same time, at most, for one call."""

_AGAIN = 4
_PAUSE = 0.2

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_EXPIRED = re.compile(
    r"<(?:Code|Message|AuthenticationErrorDetail)>[^<]*(?:[Ee]xpired|specified time frame)"
)
# obstore's own account of a failure, from its debug output.
_KIND = re.compile(r"\bkind: (Connect|Timeout|Request|Interrupted|Decode)\b")
_SECRETS = re.compile(
    r"(?i)(//)[^/@\s]+@|((?:sig|signature|token|credential|secret|key)[\w-]*=)[^&\s\"']+"
)

_CREDENTIALS = (
    "set credentials in storage_options or in the environment (S3: access_key_id and "
    "secret_access_key; Azure: account_key or sas_key; Google: service_account), or "
    "skip_signature=True for what is public; those of a web server go into its URL, "
    "https://user:password@..."
)
_REFUSALS = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId")
_OVERLOADED = (408, 429)
_NOT_THERE = {
    "NoSuchBucket": "bucket",
    "ContainerNotFound": "container",
    "ContainerDisabled": "container",
}


class RequestError(OSError):
    """A request that failed, whatever the object is like.

    Attributes
    ----------
    advice
        What to do.
    """

    advice = "check the endpoint and the network, and try again"

    def __init__(self, number: int, reason: str, advice: str = "") -> None:
        super().__init__(number, reason)
        if advice:
            self.advice = advice


class RefusedError(RequestError, PermissionError):
    """Credentials are missing, wrong, expired, or not enough."""


class RangeError(RequestError):
    """The range that was asked for cannot be had: the object is too short, or the server knows none."""


class ReplacedError(RequestError):
    """The object is another one than before."""

    advice = "open it again"


def asked(request: Callable[[], _T], what: str, *, changes: bool = False) -> _T:
    """Make a request; again where its answer broke off.

    Status codes that say so, and connections that could not be made, obstore has tried again already.

    Parameters
    ----------
    request
        Calls obstore.
    what
        The key of the object.
    changes
        Whether something is written: Ctrl-C then waits, until it is known what became of it.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    FileExistsError
        There is one already, where a new one was to be made.
    RequestError
        Anything else; without secrets.
    """
    import obstore.exceptions as failures

    _check_process()
    for attempt in range(_AGAIN):
        try:
            return request() if changes else _interruptible(request)
        except FileNotFoundError as error:
            text = str(error)
            if _code(text) in _NOT_THERE:
                raise translated(text, what) from None
            raise FileNotFoundError(errno.ENOENT, f"no object {what!r}") from None
        except failures.AlreadyExistsError:
            raise FileExistsError(errno.EEXIST, f"there is an object {what!r} already") from None
        except failures.PreconditionError:
            raise ReplacedError(errno.ESTALE, f"{what} was replaced by another object") from None
        except (failures.PermissionDeniedError, failures.UnauthenticatedError) as error:
            raise _refused(str(error)) from None
        except failures.BaseError as error:
            if attempt == _AGAIN - 1 or not _is_worth_another(str(error)):
                raise translated(str(error), what) from None
        time.sleep(_PAUSE * 2**attempt)
    raise AssertionError("unreachable")


def _interruptible(request: Callable[[], _T]) -> _T:
    """Make a request so that Ctrl-C, which comes to the main thread, need not wait for its answer."""
    if threading.current_thread() is not threading.main_thread():
        return request()
    try:
        future = submit(request)
    except RuntimeError:  # the interpreter is about to end, and starts no thread any more
        return request()
    return future.result()


def _is_worth_another(text: str) -> bool:
    """Whether the connection broke off, and obstore has not tried again."""
    first = text.partition("\n")[0]
    return _broke_off(first) or ("error sending request" in first and " retries" not in first)


def _broke_off(first: str) -> bool:
    return first.endswith(" body error")


def _code(text: str) -> str:
    found = _CODE.search(text)
    return found[1] if found else ""


def _refused(text: str) -> RefusedError:
    status, code = _STATUS.search(text), _code(text)
    reason = f"HTTP {status[1]}" if status else "refused"
    if _EXPIRED.search(text):
        return RefusedError(
            errno.EACCES, f"{reason}: the token has expired", "get a new token, and open it again"
        )
    return RefusedError(errno.EACCES, f"{reason}: {code or 'access denied'}", _CREDENTIALS)


def translated(text: str, what: str) -> RequestError:
    """Return the error for what obstore says."""
    if "169.254." in text or "metadata.google" in text or "missing account key" in text.lower():
        return RefusedError(errno.EACCES, "there are no credentials", _CREDENTIALS)
    code, status, kind = _code(text), _STATUS.search(text), _KIND.search(text)
    # Listings do not tell refusals from other failures.
    if code in _REFUSALS or (status is not None and status[1] in ("401", "403")):
        return _refused(text)
    if code in _NOT_THERE:
        return RequestError(
            errno.ENXIO, f"there is no such {_NOT_THERE[code]}", "check its name and the endpoint"
        )
    if code == "AuthorizationHeaderMalformed" or "redirect without LOCATION" in text:
        return RequestError(
            errno.EIO, "the bucket is elsewhere", "check the region and the endpoint"
        )
    if "StartTooLarge" in text or (status is not None and status[1] == "416"):
        return RangeError(errno.ERANGE, f"{what!r} is shorter", "open it again")
    if status is not None:
        number = int(status[1])
        again = number >= 500 or number in _OVERLOADED
        advice = "" if again else "check the address and the options"
        return RequestError(errno.EIO, f"HTTP {number} {code}".rstrip() + f" for {what!r}", advice)
    if "Range request not supported" in text or "non-partial response" in text:
        return RangeError(
            errno.ENOTSUP,
            "the server does not answer requests for parts of a file",
            "use a server that supports HTTP Range requests, such as nginx",
        )
    if "invalid path" in text:
        return RequestError(
            errno.EINVAL,
            "an object there has a key with an empty part, '.' or '..', which obstore does not take",
            "rename it, or give a prefix without such objects",
        )
    first = without_secrets(text.partition("\n")[0])
    if _broke_off(first):
        return RequestError(errno.EIO, f"the answer for {what!r} broke off, again and again")
    if kind is not None and kind[1] == "Timeout":
        return RequestError(errno.ETIMEDOUT, f"the endpoint is too slow ({first})")
    if "error sending request" in first or (kind is not None and kind[1] == "Connect"):
        return RequestError(errno.EHOSTUNREACH, f"the endpoint does not answer ({first})")
    return RequestError(errno.EIO, f"{what!r}: {first}")


def without_secrets(text: str) -> str:
    """Return a message without what may let others in."""
    return _SECRETS.sub(lambda match: match[1] or f"{match[2]}...", text)


_process: int | None = None


def _check_process() -> None:
    """Refuse to wait for threads of the parent, which a forked process does not have."""
    global _process
    here = os.getpid()
    if _process is None:
        _process = here
    elif _process != here:
        raise ImgStoreError(
            "object storage was used before this process was forked, which its client does not survive; "
            "start processes by multiprocessing's 'forkserver' or 'spawn' instead"
        )


_executors: dict[int, ThreadPoolExecutor] = {}


def submit(work: Callable[..., _R], *arguments: Any) -> Future[_R]:
    """Have a thread of this process make requests; `work` must not wait for another one."""
    executor = _executors.get(os.getpid())
    if executor is None:
        executor = ThreadPoolExecutor(CONCURRENT, "imgstore-requests")
        executor = _executors.setdefault(os.getpid(), executor)
    # Ctrl-C amid the start of a thread would leave one that nobody ends.
    with Deferred():
        return executor.submit(work, *arguments)


def is_far(location: Location) -> bool:
    """Whether reading means to send requests, many of which had better be made at once."""
    return location.path is None


def each(work: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    """Do many things at once that wait for requests; raises what failed, when all have ended.

    After Ctrl-C nothing more is begun, and what is under way is not waited for.
    """
    futures = list[Future[_R]]()
    try:
        for item in items:
            futures.append(submit(work, item))  # not all at once: these are cancelled
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()
    wait(futures)
    return [future.result() for future in futures if not future.cancelled()]
