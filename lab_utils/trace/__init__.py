"""What rules do to a packet."""

from __future__ import annotations

from lab_utils.trace.packet import Packet
from lab_utils.trace.story import Destination, Step, Trace, Undecided

__all__ = ["Destination", "Packet", "Step", "Trace", "Undecided"]
