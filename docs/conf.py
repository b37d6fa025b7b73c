"""Configuration of the documentation: sphinx-build -W docs docs/_build/html."""

from imgstore_zarr import __version__

project = "imgstore-zarr"
copyright = "the imgstore-zarr developers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"imgstore-zarr {release}"
html_copy_source = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_use_rtype = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
default_role = "code"

# Every reference into this package must be found; other projects are not looked up.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!imgstore_zarr).*"),
    (r"py:class", r"imgstore_zarr\.(pixels\.Conversion|video\.media\.Media)"),  # not public
]
