"""What a run leaves in its log, on the screen, and with the trackers that it was to be followed by."""

from .lines import displayed, filling, improving_notes, logged, scalars, uninterrupted
from .memory import memory_lines, memory_text, planned_memory, show_memory
from .trackers import Trackers, followed, kinds, refuse_unknown

__all__ = [
    "Trackers",
    "displayed",
    "filling",
    "followed",
    "improving_notes",
    "kinds",
    "logged",
    "memory_lines",
    "memory_text",
    "planned_memory",
    "refuse_unknown",
    "scalars",
    "show_memory",
    "uninterrupted",
]
