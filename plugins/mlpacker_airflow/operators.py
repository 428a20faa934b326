"""One operator per stage. Each calls `packer_lib` with what `validate` froze and has no logic of its own.

Nothing is templated: text from a PADL file never reaches Jinja. Between tasks travels small JSON without secrets.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.sdk.log import mask_secret

from packer_lib import settings as installation
from packer_lib.errors import BuildFailed, DeployFailed, MLPackerError, PadlInvalid, PolicyRefused
from packer_lib.plan import Plan, Unit, from_dict, to_dict
from packer_lib.settings import Settings

if TYPE_CHECKING:
    from packer_lib.artefacts import Artefact
    from packer_lib.build import Environment
    from packer_lib.bundle import Bundle
    from packer_lib.release import Release

T = TypeVar("T")
VALIDATE = "validate"
# What a second try cannot mend: the file and the policy are what they are, and after a failed deployment every unit is
# back on its former release, where it stays until a person has looked.
FINAL = (PadlInvalid, PolicyRefused, DeployFailed)


@dataclass(frozen=True, slots=True)
class Run:
    """What a stage works with: the task's context, this installation's settings, and what earlier tasks left."""

    context: Any
    settings: Settings

    @property
    def id(self) -> str:
        return str(self.context["run_id"])

    @property
    def plan(self) -> Plan:
        return from_dict(self._left(VALIDATE)["plan"])

    def artefacts(self, unit: str) -> tuple[Artefact, ...]:
        from packer_lib.artefacts import Artefact

        return tuple(_value(item, Artefact) for item in self._left(VALIDATE)["artefacts"][unit])

    def bundle(self, unit: str) -> Bundle:
        from packer_lib.bundle import Bundle

        return _value(self._left(f"{unit}.template"), Bundle)

    def environment(self, unit: str) -> Environment:
        from packer_lib.build import Environment

        return _value(self._left(f"{unit}.build"), Environment)

    def releases(self) -> list[Release]:
        from packer_lib.release import Release

        return [_value(self._left(f"{unit.name}.stage"), Release) for unit in self.plan.units]

    def _left(self, task: str) -> Any:
        return self.context["ti"].xcom_pull(task_ids=task)


def _plain(value: Any) -> Any:
    """`value` in JSON's types; paths as text."""
    return msgspec.to_builtins(value, enc_hook=str)


def _value(plain: Any, kind: type[T]) -> T:
    """The reverse of `_plain`."""
    return msgspec.convert(plain, kind, dec_hook=lambda wanted, text: wanted(text))


class StageOperator(BaseOperator):
    """`unit` is empty in the stages of a whole pipeline; `masked` are the PADL file's secrets, never to be logged."""

    ui_color = "#e8f0fe"
    final: ClassVar[tuple[type[MLPackerError], ...]] = FINAL
    limit: ClassVar[timedelta] = timedelta(minutes=15)
    changes_machine: ClassVar[bool] = False

    def __init__(self, *, unit: str = "", masked: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**{"execution_timeout": self.limit, **kwargs})
        self.unit = unit
        self.masked = tuple(masked)

    def execute(self, context: Any) -> Any:
        for secret in self.masked:
            mask_secret(secret)
        if self.changes_machine and context["params"].get("dry_run"):
            raise AirflowSkipException("dry run: nothing goes live")
        try:
            return self.work(Run(context, installation.read()))
        except MLPackerError as error:
            raise self._failure(error) from None

    def _failure(self, error: MLPackerError) -> AirflowException:
        """The whole story in the log, before Airflow adds how it came there; another try only if that may help."""
        for line in str(error).splitlines():
            self.log.error("%s", line)
        kind = AirflowFailException if isinstance(error, self.final) else AirflowException
        return kind(f"{type(error).__name__}, see above")

    @abstractmethod
    def work(self, run: Run) -> Any:
        """Returns what later tasks need, as plain values."""


class ValidateOperator(StageOperator):
    """Freezes the run: the plan, and the digest of every artefact. Later tasks read only what this one returns."""

    def __init__(self, *, planned: Plan, warnings: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.planned = planned
        self.warnings = tuple(warnings)

    def work(self, run: Run) -> dict[str, Any]:
        from packer_lib import artefacts, release

        for warning in self.warnings:
            self.log.warning("%s", warning)
        release.refuse_what_is_elsewhere(self.planned)
        artefacts.require(self.planned, run.settings)
        fetched = {unit.name: self._fetch(unit, run.settings) for unit in self.planned.units}
        return {"plan": to_dict(self.planned), "artefacts": _plain(fetched)}

    def _fetch(self, unit: Unit, settings: Settings) -> tuple[Artefact, ...]:
        from packer_lib import artefacts

        fetched = artefacts.fetch(self.planned, unit, settings)
        for item in fetched:
            commit = f", commit {item.commit}" if item.commit else ""
            self.log.info("%s: %s %s%s, sha256 %s", item.step, item.kind, item.source, commit, item.digest)
        return fetched


class ReportOperator(BaseOperator):
    """Fails with `report`: what the generator makes of a broken file."""

    ui_color = "#fce8e6"

    def __init__(self, *, report: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.report = report

    def execute(self, context: Any) -> None:
        for line in self.report.splitlines():
            self.log.error("%s", line)
        raise AirflowFailException(f"{context['ti'].dag_id}: the PADL file is broken, see above")


class TemplateOperator(StageOperator):
    """The unit's bundle: a folder that runs anywhere, named by its content."""

    def work(self, run: Run) -> Any:
        from packer_lib import bundle
        from packer_lib.hosts.layout import Layout
        from packer_lib.hosts.local import LocalHost

        plan = run.plan
        with tempfile.TemporaryDirectory(prefix=".bundle-", dir=run.settings.home) as folder:
            place = Path(folder, self.unit)
            written = bundle.write(plan, plan.unit(self.unit), run.artefacts(self.unit), place, run.settings)
            kept = Layout(str(run.settings.home)).bundle(written.digest)
            LocalHost(run.settings).put(written.path, kept)
        self.log.info("bundle %s", kept)
        return _plain(replace(written, path=Path(kept)))


class BuildOperator(StageOperator):
    """An environment with exactly what the bundle's lock names; units with the same lock share one."""

    limit = timedelta(minutes=40)

    def work(self, run: Run) -> Any:
        from packer_lib import build
        from packer_lib.hosts.local import LocalHost

        environment = build.environment(LocalHost(run.settings), run.bundle(self.unit), run.settings, self.log.info)
        self.log.info("environment %s", environment.python)
        return _plain(environment)


class TestOperator(StageOperator):
    """Every model and handler of the bundle is loaded in its environment and answers its golden request."""

    __test__ = False  # for pytest, which collects by name
    final = (*FINAL, BuildFailed)

    def work(self, run: Run) -> None:
        from packer_lib import release
        from packer_lib.hosts.local import LocalHost

        plan, environment = run.plan, run.environment(self.unit)
        self.log.info("loading %s in %s", environment.folder, environment.python)
        release.check(LocalHost(run.settings), plan, plan.unit(self.unit), run.bundle(self.unit), environment)
        self.log.info("every model and handler loads, and golden requests are answered")


class PushOperator(StageOperator):
    """The image of a containerized unit, for a machine that pulls it; `validate` refuses what is not pushed yet."""

    def work(self, run: Run) -> None:
        from packer_lib import release

        release.refuse_what_is_elsewhere(run.plan)


class StageReleaseOperator(StageOperator):
    """The unit's next release complete on the machine, and not live."""

    changes_machine = True

    def work(self, run: Run) -> Any:
        from packer_lib import release
        from packer_lib.hosts.local import LocalHost

        plan, bundle, environment = run.plan, run.bundle(self.unit), run.environment(self.unit)
        staged = release.stage(
            LocalHost(run.settings), plan, plan.unit(self.unit), bundle, environment, run.settings, run.id
        )
        self.log.info("release %s will answer at %s", staged.id, staged.endpoint)
        return _plain(staged)


class SwitchOperator(StageOperator):
    """Every unit live, consumers before producers; if one cannot be, every unit is what it was."""

    changes_machine = True

    def work(self, run: Run) -> None:
        from packer_lib import release
        from packer_lib.hosts.local import LocalHost

        host, plan = LocalHost(run.settings), run.plan
        with release.locked(host, plan, run.settings, run.id, self.log.info):
            release.switch_all(host, plan, run.releases(), run.settings, self.log.info)


class VerifyOperator(StageOperator):
    """Every unit is ready and answers its golden request; if one does not, every unit is what it was."""

    changes_machine = True

    def work(self, run: Run) -> Any:
        from packer_lib import release
        from packer_lib.hosts.local import LocalHost

        host, plan = LocalHost(run.settings), run.plan
        with release.locked(host, plan, run.settings, run.id, self.log.info):
            live = release.verify_all(host, plan, run.releases(), run.settings, self.log.info)
        for one in live:
            self.log.info("%s: answers at %s (release %s)", one.unit, one.endpoint, one.id)
        return _plain(live)
