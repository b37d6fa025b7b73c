"""The version of the distribution, read by the build and by the recordings that are written."""

__version__ = "0.1.0"
