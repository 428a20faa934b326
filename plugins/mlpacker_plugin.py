"""What Airflow loads of MLPacker. Every file here runs in every Airflow process, each task's too: keep it this small.

The folder `mlpacker_airflow` beside it is importable because Airflow puts `plugins/` on `sys.path`; `.airflowignore`
keeps Airflow from executing its modules one by one.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin
from mlpacker_airflow.timetable import OnChangeTimetable


class MLPackerPlugin(AirflowPlugin):
    name = "mlpacker"
    timetables = [OnChangeTimetable]  # noqa: RUF012  Airflow declares it so
