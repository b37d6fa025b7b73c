"""One module for each contender, with the same functions; `benchmarks.worker` serves them.

Each function does one work, times itself and returns seconds per frame (or per look-up, or for one
opening), so that the way to the worker costs nothing.
"""
