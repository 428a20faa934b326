"""When a pipeline runs by itself: as soon as its file appears or changes, then by its own schedule if it has one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from airflow.timetables.trigger import CronTriggerTimetable


class OnChangeTimetable(Timetable):
    """A run for `changed`, the moment since when the file is as it is, unless one was started since; then `cron`."""

    def __init__(self, changed: datetime, cron: str | None = None) -> None:
        self.changed = pendulum.instance(changed)
        self.cron = cron
        self._later = CronTriggerTimetable(cron, timezone="UTC") if cron else None
        self.description = "when the PADL file changes" + (f", and {self._later.description}" if self._later else "")

    @property
    def summary(self) -> str:
        return f"on change, {self.cron}" if self.cron else "on change"

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        if last_automated_data_interval is None or last_automated_data_interval.end < self.changed:
            return DagRunInfo.exact(self.changed)
        if self._later is None:
            return None
        last = last_automated_data_interval
        return self._later.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        return DataInterval.exact(run_after)

    def serialize(self) -> dict[str, Any]:
        return {"changed": self.changed.isoformat(), "cron": self.cron}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        return cls(datetime.fromisoformat(data["changed"]), data["cron"])
