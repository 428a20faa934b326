"""One operator per stage. Each calls `packer_lib` with what `validate` froze and has no logic of its own.

Nothing is templated: text from a PADL file never reaches Jinja. Between tasks travels small JSON without secrets.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.sdk.log import mask_secret

from mlpacker_airflow import secrets
from mlpacker_airflow.run import SWAPS, VALIDATE, Run, plain
from packer_lib import settings as installation
from packer_lib.errors import BuildFailed, DeployFailed, MLPackerError, PadlInvalid, PolicyRefused
from packer_lib.hosts import Host, Unreachable
from packer_lib.plan import Plan, Unit, to_dict
from packer_lib.settings import Settings

if TYPE_CHECKING:
    from mlpacker_airflow.machines import Machines
    from packer_lib.artefacts import Artefact
    from packer_lib.release import Release

__all__ = ["VALIDATE", "Run", "StageOperator"]

# What a second try cannot mend: the file and the policy are what they are, and after a failed deployment every unit is
# back on its former release, where it stays until a person has looked. A machine that cannot be reached is tried again.
FINAL = (PadlInvalid, PolicyRefused, DeployFailed)
STOPPED = 128 + 15


class StageOperator(BaseOperator):
    """`unit` is empty in the stages of a whole pipeline. `text` is the PADL file `file`'s: it may hold passwords, which
    are hidden in every log, and is not among what Airflow stores of a task."""

    ui_color = "#e8f0fe"
    final: ClassVar[tuple[type[MLPackerError], ...]] = FINAL
    limit: ClassVar[timedelta] = timedelta(minutes=15)
    changes_machine: ClassVar[bool] = False

    def __init__(self, *, unit: str = "", text: str = "", file: str = "", **kwargs: Any) -> None:
        super().__init__(**{"execution_timeout": self.limit, **kwargs})
        self.unit = unit
        self.text = text
        self.file = file
        self._at_work = False

    def execute(self, context: Any) -> Any:
        for secret in secrets.literals(self.text, self.file):
            mask_secret(secret)
        if self.changes_machine and context["params"].get("dry_run"):
            raise AirflowSkipException("dry run: nothing goes live")
        try:
            self._at_work = True
            return self.work(Run(context, installation.read(), self.text))
        except MLPackerError as error:
            raise self._failure(error) from None
        finally:
            self._at_work = False

    def on_kill(self) -> None:
        """Called where TERM finds us: what is under way ends with what it started, and what it took it gives back.

        Airflow kills us 5 s later whatever we do; what then stays is what the next try finds and goes on from.
        """
        if self._at_work:
            self._at_work = False
            raise SystemExit(STOPPED)

    def _failure(self, error: MLPackerError) -> AirflowException:
        """The whole story in the log, before Airflow adds how it came there; another try only if that may help."""
        for line in str(error).splitlines():
            self.log.error("%s", line)
        final = isinstance(error, self.final) and not isinstance(error, Unreachable)
        return (AirflowFailException if final else AirflowException)(f"{type(error).__name__}, see above")

    @abstractmethod
    def work(self, run: Run) -> Any:
        """Returns what later tasks need, as plain values."""


class ValidateOperator(StageOperator):
    """Freezes the run: the plan, and the digest of every artefact. Later tasks read only what this one returns.

    Every machine is asked whether it has what the plan needs, all at once, before anything changes.
    """

    def __init__(self, *, planned: Plan, warnings: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.planned = planned
        self.warnings = tuple(warnings)

    def work(self, run: Run) -> dict[str, Any]:
        from packer_lib import artefacts, release

        for warning in self.warnings:
            self.log.warning("%s", warning)
        for problem in artefacts.require(self.planned, run.settings):
            self.log.warning("%s", problem)
        with run.machines(self.planned) as fleet:
            release.preflight(fleet, self.planned, run.with_registry(self.planned), self.log.info)
        fetched = {unit.name: self._fetch(unit, run.settings) for unit in self.planned.units}
        return {"plan": to_dict(self.planned), "artefacts": plain(fetched)}

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
        return plain(replace(written, path=Path(kept)))


class Builder(StageOperator):
    """Builds nothing when the release that is live differs in its models only: it gets those, by a swap."""

    limit = timedelta(minutes=40)

    def work(self, run: Run) -> Any:
        from packer_lib import release

        plan = run.plan
        unit, bundle = plan.unit(self.unit), run.bundle(self.unit)
        with run.machines(plan) as fleet:
            live = release.as_it_runs(fleet, plan, unit, bundle, run.with_connections(plan), run.id)
        if live is None:
            return self.build(run, plan)
        self.log.info("swap: release %s goes on and differs in its models only; nothing is built", live.id)
        return {SWAPS: live.id}

    @abstractmethod
    def build(self, run: Run, plan: Plan) -> Any:
        """Returns what was built, as plain values."""


class BuildOperator(Builder):
    """On the unit's machine, an environment with exactly what the bundle's lock names; units with the same lock share
    one."""

    def build(self, run: Run, plan: Plan) -> Any:
        from packer_lib import build

        with run.machines(plan) as fleet:
            host = fleet[plan.unit(self.unit).machine]
            environment = build.environment(host, run.bundle(self.unit), run.settings, self.log.info)
        self.log.info("environment %s on %s", environment.python, host.name)
        return plain(environment)


class BuildImageOperator(Builder):
    """The unit's image; nothing is built when there is one of this bundle."""

    ui_color = "#e6f4ea"

    def build(self, run: Run, plan: Plan) -> Any:
        from packer_lib import images

        unit, settings = plan.unit(self.unit), run.with_registry(plan)
        image = images.build(run.bundle(self.unit), plan, unit, settings, self.log.info)
        self.log.info("image %s %s, %.0f MB, %s", image.name, image.id, image.size / 1e6, image.arch)
        return plain(image)


class TestOperator(StageOperator):
    """Every model and handler of the bundle is loaded in its environment and answers its golden request."""

    __test__ = False  # for pytest, which collects by name
    final = (*FINAL, BuildFailed)

    def work(self, run: Run) -> None:
        from packer_lib import release

        if run.swaps(self.unit):
            self.log.info("swap: the unit itself tries its new models, and refuses what does not answer")
            return
        plan, environment = run.plan, run.environment(self.unit)
        self.log.info("loading %s in %s", environment.folder, environment.python)
        with run.machines(plan) as fleet:
            unit = plan.unit(self.unit)
            release.check(fleet[unit.machine], plan, unit, run.bundle(self.unit), environment)
        self.log.info("every model and handler loads, and golden requests are answered")


class PushOperator(StageOperator):
    """The unit's image in the registry, and its digest there. Without one, images go to the machines directly."""

    limit = timedelta(minutes=40)
    ui_color = "#e6f4ea"

    def work(self, run: Run) -> Any:
        from packer_lib import images

        if run.swaps(self.unit):
            self.log.info("swap: there is no new image")
            return None
        plan, image = run.plan, run.image(self.unit)
        registry = images.registry_of(run.with_registry(plan), plan)
        if registry is None:
            self.log.info("no registry: the image goes to its machine over SSH")
            return plain(image)
        mask_secret(registry.password)
        pushed = images.push(image, registry, run.settings, self.log.info)
        self.log.info("pushed as %s", pushed.reference)
        return plain(pushed)


class StageReleaseOperator(StageOperator):
    """The unit's next release complete on its machine, and not live."""

    changes_machine = True
    limit = timedelta(minutes=40)

    def work(self, run: Run) -> Any:
        from packer_lib import release

        plan, settings = run.plan, run.with_connections(run.plan)
        unit, bundle = plan.unit(self.unit), run.bundle(self.unit)
        with run.machines(plan) as fleet:
            if run.swaps(self.unit):
                return plain(self._swapped(run, fleet, plan, unit, settings))
            if plan.containerized:
                self._deliver(run, fleet[unit.machine])
            staged = release.stage(fleet, plan, unit, bundle, run.made(plan, unit), settings, run.id, run.text)
        self.log.info("release %s will answer at %s", staged.id, staged.endpoint)
        return plain(staged)

    def _swapped(self, run: Run, fleet: Machines, plan: Plan, unit: Unit, settings: Settings) -> Release:
        """The release that goes on, with the models that it is to have beside it."""
        from packer_lib import release

        bundle = run.bundle(self.unit)
        live = release.as_it_runs(fleet, plan, unit, bundle, settings, run.id)
        if live is None:
            raise DeployFailed(
                f"{plan.pipeline}.{unit.name}: it is not what runs any more", "start the run again from its beginning"
            )
        release.put_models(fleet[unit.machine], live, bundle)
        self.log.info("swap: release %s has its new models beside it", live.id)
        return live

    def _deliver(self, run: Run, host: Host) -> None:
        from packer_lib import images

        settings = run.with_registry(run.plan)
        registry = images.registry_of(settings, run.plan)
        sent = images.deliver(host, run.image(self.unit), registry, settings, self.log.info)
        if sent:
            self.log.info("%.1f MB of the image went to %s over SSH", sent / 1e6, host.name)


class SwitchOperator(StageOperator):
    """Every unit live, consumers before producers; if one cannot be, every unit is what it was."""

    changes_machine = True
    ui_color = "#fef7e0"

    def work(self, run: Run) -> None:
        from packer_lib import release

        plan = run.plan
        with run.machines(plan) as fleet, release.locked(fleet, plan, run.settings, run.id, self.log.info):
            release.switch_all(fleet, plan, run.releases(plan), run.settings, self.log.info)


class VerifyOperator(StageOperator):
    """Every unit is ready and answers its golden request; if one does not, every unit is what it was."""

    changes_machine = True
    ui_color = "#fef7e0"

    def work(self, run: Run) -> Any:
        from packer_lib import release

        plan = run.plan
        with run.machines(plan) as fleet, release.locked(fleet, plan, run.settings, run.id, self.log.info):
            live = release.verify_all(fleet, plan, run.releases(plan), run.settings, self.log.info)
        for one in live:
            self.log.info("%s: answers at %s (release %s)", one.unit, one.endpoint, one.id)
        return plain(live)
