"""Opens the page in a browser, or says what to do where there is none."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping


def advice(port: int, environment: Mapping[str, str]) -> str | None:
    """Return what to do where this machine has no screen of the user's; None where it has one.

    Parameters
    ----------
    port
        Where the server listens.
    environment
        The environment variables.
    """
    connection = environment.get("SSH_CONNECTION", "").split()
    if len(connection) == 4:
        user = environment.get("USER", "you")
        return (
            f"On your own machine run:  ssh -N -L {port}:127.0.0.1:{port} {user}@{connection[2]}\n"
            "and open the address above in a browser there."
        )
    if sys.platform != "darwin" and not (
        environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    ):
        return (
            "There is no display here. Open the address above in a browser on this machine, or forward "
            f"the port from another one:  ssh -N -L {port}:127.0.0.1:{port} THIS-MACHINE"
        )
    return None


def open_page(address: str) -> bool:
    """Open an address in the user's browser; return whether there is one."""
    try:
        return webbrowser.get().open(address)
    except (webbrowser.Error, OSError):
        return False


def what_to_do(address: str, port: int) -> str | None:
    """Open the page, or return what the user is to do."""
    return advice(port, os.environ) or (
        None if open_page(address) else "No browser was found: open the address above in one."
    )
