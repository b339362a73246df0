"""Where this node keeps what it fetched and what it knows of it. Knows nothing of what is kept."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "OMNIGEN_BATCH_CACHE"


def cache_folder(kind: str) -> Path:
    """The folder of one kind of content, not made yet: below $OMNIGEN_BATCH_CACHE, or the user's own cache."""
    base = os.environ.get(VARIABLE) or Path.home() / ".cache" / "omnigen-batch"
    return Path(base) / kind
