"""Data sets by id: where they come from, and how their files become columns."""

from bench.data.loading import (
    Rows,
    as_jsonl,
    find_changed,
    find_local_file,
    list_local_splits,
    load,
    record_source,
    record_sources,
    relative_path,
    use_folder,
    write_split,
)

__all__ = [
    "Rows",
    "as_jsonl",
    "find_changed",
    "find_local_file",
    "list_local_splits",
    "load",
    "record_source",
    "record_sources",
    "relative_path",
    "use_folder",
    "write_split",
]
