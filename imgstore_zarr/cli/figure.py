"""The figure of the demo: a strip of frames above motion energy and temperature over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

import imgstore_zarr
from imgstore_zarr.cli.console import moment_text
from imgstore_zarr.report import Gap
from imgstore_zarr.store import ImgStore

if TYPE_CHECKING:
    import xarray as xr

_SHOTS = 6
_COLORS = ("#d1495b", "#1f6f8b", "#6a994e")
_TEMPERATURE = "#b36a00"
_INK = "#33373d"
_LEFT = 0.07
_STYLE: dict[str, Any] = {"size": 9, "color": _INK}


def draw(target: Path, recording: Path, energies: Mapping[str, xr.DataArray]) -> None:
    """Draw the figure.

    Parameters
    ----------
    target
        The PNG file.
    recording
        Where the frames, the temperature and the gaps come from.
    energies
        Motion energy of each recording by its name.
    """
    with imgstore_zarr.open(recording) as store:
        figure = Figure(figsize=(11, 6.2), dpi=160, facecolor="white")
        rows = figure.add_gridspec(
            2, 1, height_ratios=(1, 2.3), hspace=0.24,
            left=_LEFT, right=0.985, top=0.855, bottom=0.085,
        )  # fmt: skip
        curves = rows[1].subgridspec(2, 1, height_ratios=(1.5, 1), hspace=0.12)
        upper = figure.add_subplot(curves[0])
        lower = figure.add_subplot(curves[1], sharex=upper)
        start = store.frame_time_min
        gaps = store.report().gaps
        _draw_energy(upper, energies, start, gaps)
        _draw_temperature(lower, store, start, gaps)
        for axes in (upper, lower):
            _shade_gaps(axes, store, gaps, labelled=axes is upper)
            _tidy(axes)
        upper.tick_params(labelbottom=False)
        upper.set_xlim(0, store.duration)
        zone = store.created[1]
        lower.set_xlabel(
            f"time since {moment_text(store.convert_frame_time_to_datetime(start), zone)}  [s]",
            **_STYLE,
        )
        shots = rows[0].subgridspec(1, _SHOTS, wspace=0.05)
        _draw_strip([figure.add_subplot(shots[i]) for i in range(_SHOTS)], upper, store, start)
        figure.text(
            _LEFT, 0.955, "Motion follows the heat lamp", size=14, weight="bold", color=_INK
        )
        size = " x ".join(str(n) for n in store.image_shape)
        facts = f"{store.frame_count:,} frames of {size} pixels in {store.duration:.1f} s"
        figure.text(_LEFT, 0.92, f"synthetic recording, {facts}", **_STYLE)
        figure.align_ylabels([upper, lower])
        figure.savefig(target)


def _draw_strip(strip: list[Any], upper: Any, store: ImgStore, start: float) -> None:
    """Show frames at even times, each tied to its moment on the time axis."""
    top = upper.get_ylim()[1]
    times = store.index.frame_time - start
    for i, axes in enumerate(strip):
        wanted = store.duration * (i + 0.5) / len(strip)
        position = int(np.abs(times - wanted).argmin())
        seconds = float(times[position])
        axes.imshow(store.frames[position], cmap="gray", vmin=0, vmax=235, interpolation="lanczos")
        axes.set_title(f"{seconds:.1f} s", pad=3, **_STYLE)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        tie = ConnectionPatch(
            (0.5, 0), (seconds, top), "axes fraction", "data",
            axesA=axes, axesB=upper, color="#9aa0a6", lw=0.8,
        )  # fmt: skip
        upper.figure.add_artist(tie)
        upper.plot(
            [seconds], [top], marker="v", ms=5, color=_INK, clip_on=False, ls="none", zorder=5
        )


def _draw_energy(
    axes: Any, energies: Mapping[str, xr.DataArray], start: float, gaps: tuple[Gap, ...]
) -> None:
    after_gap = [gap.position - 1 for gap in gaps]
    for (name, energy), color in zip(energies.items(), _COLORS, strict=False):
        values = energy.to_numpy().copy()
        # Across a gap the difference is not one of neighbouring frames.
        values[after_gap] = np.nan
        axes.plot(energy["frame_time"] - start, values, color=color, lw=1.1, label=name)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low - 0.05 * (high - low), 0), high + 0.22 * (high - low))
    axes.set_ylabel("motion energy\n[gray levels / frame]", **_STYLE)
    axes.legend(loc="upper left", frameon=False, ncols=len(energies), fontsize=9, labelcolor=_INK)


def _draw_temperature(axes: Any, store: ImgStore, start: float, gaps: tuple[Gap, ...]) -> None:
    axes.set_ylabel("temperature\n[°C]", **_STYLE)
    axes.margins(y=0.15)
    extra = store.get_extra_data()
    if extra is None:
        return
    breaks = np.searchsorted(extra["frame_index"], [gap.position for gap in gaps])
    seconds = np.split(extra["frame_time"].to_numpy() - start, breaks)
    values = np.split(extra["temperature"].to_numpy(), breaks)
    for x, y in zip(seconds, values, strict=True):
        axes.plot(x, y, color=_TEMPERATURE, lw=0.9, marker=".", ms=3.5)


def _shade_gaps(axes: Any, store: ImgStore, gaps: tuple[Gap, ...], *, labelled: bool) -> None:
    times = store.index.frame_time - store.frame_time_min
    for gap in gaps:
        before, after = times[gap.position - 1], times[gap.position]
        axes.axvspan(before, after, color="#e4e6e9", lw=0, zorder=1)
        if labelled:
            axes.text(
                (before + after) / 2, 0.5, f"{gap.missing} frames dropped", rotation=90,
                ha="center", va="center", transform=axes.get_xaxis_transform(), **_STYLE,
            )  # fmt: skip


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9aa0a6")
    axes.tick_params(color="#9aa0a6", labelcolor=_INK, labelsize=9)
    axes.grid(axis="y", color="#eceef0", lw=0.8)
    axes.set_axisbelow(True)
