"""An Airflow home of this session's own, set before anything imports Airflow; and PADL texts to build DAGs from."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.support import ROOT

HOME = Path(tempfile.mkdtemp(prefix="mlpacker-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["AIRFLOW_HOME"] = str(HOME)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(ROOT / "plugins")
os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH"] = str(HOME / "dag-bundles")
sys.path.append(str(ROOT / "plugins"))
