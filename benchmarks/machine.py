"""What the figures were measured on; nothing that names a place or a person."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def facts(workdir: Path) -> dict[str, str]:
    """Return what a reader must know to judge the figures."""
    return {
        "CPU": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "file system": _file_system(workdir),
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "load average before": f"{os.getloadavg()[0]:.1f}",
    }


def _field(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _memory() -> str:
    total = int(_field("/proc/meminfo", "MemTotal").split()[0]) * 1024
    return f"{total / 2**30:.0f} GiB"


def _file_system(directory: Path) -> str:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    place = directory.resolve()
    kinds = {
        Path(point): kind for _, point, kind, *_ in mounts if place.is_relative_to(Path(point))
    }
    return kinds[max(kinds, key=lambda point: len(point.parts))]
