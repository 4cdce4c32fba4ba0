"""`LAB_PATIENCE=N`: wait N times as long as on an ordinary machine, for emulated or very busy ones. 1 where nothing is said."""

from __future__ import annotations

import os

from lab_utils.errors import BadInput


def patience() -> float:
    said = os.environ.get("LAB_PATIENCE", "1")
    try:
        factor = float(said)
    except ValueError:
        factor = 0.0
    if not 1 <= factor <= 100:
        raise BadInput(f"LAB_PATIENCE={said} is not understood", "It takes a number from 1 to 100: how many times longer to wait")
    return factor
