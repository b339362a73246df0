"""A place that a user names: is it a run store or a data set, and is that whole? Knows neither's insides."""

from __future__ import annotations

from omnigen_actor import uri
from omnigen_actor.errors import ConfigError, OutputError
from pipelines.locations import locate
from pipelines.verify.report import Report
from pipelines.verify.sets.check import verify_set
from pipelines.verify.sets.config import SetConfig
from pipelines.verify.sets.source import MARKER
from pipelines.verify.store_check import OnProgress, VerifyConfig, is_store, verify


def verify_any(
    location: str,
    config: SetConfig,
    *,
    fix: bool = False,
    take_over: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> Report:
    """Check what is there. Raises OutputError where that is neither, ConfigError for a setting of the other one."""
    root = locate(location, OutputError, "")
    try:
        is_run = not uri.exists(uri.join(root, MARKER)) and is_store(root)
    except OSError as error:
        raise OutputError(f"{uri.redact(root)!r} can't be read: {error}") from None
    if not is_run:
        if take_over:
            raise ConfigError("take_over: is for run stores, and this is none; nobody holds a data set")
        return verify_set(location, config, fix=fix, on_progress=on_progress)
    for name, given in (
        ("image_root", config.image_root is not None),
        ("near_duplicates", config.near_duplicates is not None),
        ("load", config.has_load),
    ):
        if given:
            raise ConfigError(f"{name}: is for data sets, and {uri.redact(root)!r} is a run store; leave it out")
    store_config = VerifyConfig(has_hash=config.has_hash, has_decode=config.has_decode, num_threads=config.num_threads)
    return verify(location, store_config, fix=fix, take_over=take_over, on_progress=on_progress)
