"""The real imgstore 0.4.0, in an interpreter of its own, and the calls that are made on both."""

from tests.reference.client import ImgStoreRaisedError, Reference, ours
from tests.reference.environment import reference_python

__all__ = ["ImgStoreRaisedError", "Reference", "ours", "reference_python"]
