"""All DAGs of the watched folder from one Python file, with nothing configured in Airflow.

Airflow notices a new PADL file when it parses that Python file again (`min_file_process_interval`, 30 s by default),
or at once when the Python file is touched. A run follows the file as it is, not as it was when the run began.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.sdk import DAG, get_parsing_context

from mlpacker_airflow import builder, folder
from mlpacker_airflow.bundle import PadlDagBundle
from mlpacker_airflow.folder import Entry, Found

BROKEN = "mlpacker-invalid."


def dags(default: Path) -> Iterator[DAG]:
    """One DAG for each file of `MLPACKER__PATHS__PIPELINES` (else `default`), a failing one for a broken file.

    A task process gets the one DAG it runs, and only the files are read that can be it.
    """
    if _bundle_is_configured():
        return
    source = Path(os.environ.get("MLPACKER__PATHS__PIPELINES") or default).absolute()
    wanted = get_parsing_context().dag_id
    found = folder.scan(source) if source.is_dir() else []
    entries = folder.together([folder.read(source, item) for item in found if _may_be(item, wanted)])
    for entry in entries:
        dag = _dag(entry)
        if wanted in (None, dag.dag_id):
            yield dag


def _bundle_is_configured() -> bool:
    """Whether the watched folder is already a DAG bundle: then its DAGs are not made twice."""
    classpath = f"{PadlDagBundle.__module__}.{PadlDagBundle.__qualname__}"
    configured: Any = conf.getjson("dag_processor", "dag_bundle_config_list", fallback=[])
    return any(bundle.get("classpath") == classpath for bundle in configured)


def _may_be(found: Found, wanted: str | None) -> bool:
    """Whether `found` can be the file of the DAG `wanted`, without parsing it: an id is written as it is."""
    if wanted is None or wanted.startswith(BROKEN):
        return True
    try:
        return wanted.removeprefix("mlpacker.") in found.path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _dag(entry: Entry) -> DAG:
    if entry.pipeline is None or entry.problems:
        return builder.failing(broken_id(entry.found.name), "\n".join(str(problem) for problem in entry.problems))
    found = entry.found
    origin = builder.Origin(str(found.path), entry.text, found.changed, found.example, entry.warnings)
    return builder.build(entry.pipeline, origin)


def broken_id(name: str) -> str:
    """A DAG id for a file without a pipeline id; different names give different ids."""
    return BROKEN + re.sub(r"[^A-Za-z0-9.-]", lambda match: f"_{ord(match[0]):x}_", name)
