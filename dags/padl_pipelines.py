"""The second door: every PADL file of the watched folder as an Airflow DAG, where Airflow's configuration is not yours.

It needs `plugins/` of MLPacker as Airflow's plugins folder (or beside this folder) and nothing else. Where the DAG
bundle `mlpacker_airflow.bundle.PadlDagBundle` is configured, that one does the work and this file makes no DAG at all.
"""

from __future__ import annotations

import sys
from pathlib import Path

try:
    from mlpacker_airflow import generator
except ModuleNotFoundError:
    sys.path.append(str(Path(__file__).resolve().parent.parent / "plugins"))
    from mlpacker_airflow import generator

globals().update({dag.dag_id: dag for dag in generator.dags(Path(__file__).resolve().parent.parent / "pipelines")})
