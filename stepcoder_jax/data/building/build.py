"""Building the ArrayRecord data set out of problem files: all or nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from stepcoder_jax.data.formats.rows import DataError


def build_set(
    folder: str,
    files: Mapping[str, str],
    *,
    leave_out: Mapping[str, Collection[str]] | None = None,
    strict: bool = False,
) -> Path:
    """Write `files` (by split) below `folder`; return where: FOLDER/apps_plus/1.0.0.

    DataError when there is a data set already, when a split has no problem, and for what
    `read_any` refuses. All or nothing: a build that fails leaves no data set.
    """
    from stepcoder_jax.data.building.apps_plus_builder import AppsPlus

    try:
        builder = AppsPlus(files=files, leave_out=leave_out, strict=strict, data_dir=folder)
        if builder.is_prepared():
            raise DataError(
                f"FOLDER: {builder.data_dir} is built already; give a new folder or remove "
                "it"
            )
        builder.download_and_prepare()
    except OSError as error:
        raise DataError(f"FOLDER: {folder} cannot be written: {error.strerror}") from None
    return Path(builder.data_dir)
