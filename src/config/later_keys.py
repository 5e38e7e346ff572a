"""What a configuration lacks that an older version of this project stored: keys of bookkeeping that it did not know yet."""

from typing import Any

from src.config.compose import compose_tree
from src.config.errors import ConfigError
from src.config.schema import Config


def with_later_keys(stored: dict[Any, Any]) -> dict[Any, Any]:
    """Return a stored configuration with what it lacks of bookkeeping (tracking, workers, paths) as conf/ has it.

    Such keys compute nothing, so a version that knows more of them still reads what an older one stored. Others stay missing.
    """
    track = stored.get("track")
    name = track.get("name") if isinstance(track, dict) else None
    try:
        now = compose_tree([f"track={name}"] if isinstance(name, str) else [])
    except ConfigError:
        return stored
    filled = dict(stored)
    for key, field in Config.model_fields.items():
        is_bookkeeping = isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("bookkeeping")
        if is_bookkeeping and key not in stored:
            filled[key] = now[key]
        elif is_bookkeeping and isinstance(stored[key], dict):
            filled[key] = {**now[key], **stored[key]}
    return filled
