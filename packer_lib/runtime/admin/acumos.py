"""What of Acumos' model runner changes the unit, or would: at its paths, here and below `/modelrunner`.

    PUT  /model                  `model`, and `proto` and `modelConfig` if they come together: live in the same moment
    PUT  /proto, /model/configuration
    POST /transformCSV, /transformJSON     with a `model` of their own: it answers this once, in isolation; and is
                                 live from then on, with its `proto`, under `?promote=true`

`?step=` names the step where there are several, `?sha256=` what the model has to be, `?wait=` how long it may take.
Everything is checked before anything is changed. Answers are in Acumos' words; docs/acumos.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ..chain import Outcome
from ..contract import ModelUnusable, StepFailed
from ..manifest import StepSpec
from ..model_step import ModelStep
from ..modelrunner.routes import FORM, PREFIX, ROUTES, Backing, Later, Route, refusal
from ..predict import Answer, Refused, Wish
from ..wanted import Staged
from . import arriving
from .asked import Asked
from .models import Models
from .repository import wait

if TYPE_CHECKING:
    from ..modelrunner.answers import Answers
    from ..modelrunner.kept import Put
    from ..modelrunner.multipart import Part

OK = Answer(200, b'{"status":"ok"}')
HERE = {path: route for path, route in ROUTES.items() if route.verb == "PUT" or "model" in route.beside}


@dataclass(frozen=True, slots=True)
class Sent:
    """What a form brought: its parts in memory, and the file of its part `model`, which may be empty."""

    parts: Mapping[str, Part]
    file: arriving.Arriving


class Acumos:
    """`largest` is how large a model may be, in bytes. What reads forms and messages is imported when it is needed."""

    def __init__(self, models: Models, backing: Backing, largest: int) -> None:
        self._models, self._backing, self._largest = models, backing, largest
        self._answers = Later(backing)

    async def answer(self, asked: Asked) -> Answer | None:
        path = asked.path.removeprefix(PREFIX)
        if path not in HERE:
            return None
        try:
            return await self._answer(HERE[path], path, asked)
        except Refused as refused:
            return refusal(refused)

    async def _answer(self, route: Route, path: str, asked: Asked) -> Answer:
        if asked.method != route.verb:
            raise Refused(405, f"{path} takes {route.verb}, got {asked.method}")
        wait(asked)
        asked.require_kind(FORM, self._largest + asked.most)
        answers = await self._answers()
        async with arriving.file_in(self._models.state, self._largest) as file:
            sent = await self._sent(route, asked, file, answers)
            if route.verb == "POST":
                return await self._tried(route, asked, sent, answers)
            if path == "/model":
                step = self._models.only(asked.query.get("step", ""))
                await self._bring(step, asked, sent, await self._serializer(step, asked, sent), answers)
            else:
                await self._put(sent, answers)
        return OK

    async def _sent(self, route: Route, asked: Asked, file: arriving.Arriving, answers: Answers) -> Sent:
        """`Refused` for a form that is none, or not of this route."""
        from ..modelrunner.forms import check_names

        parts = await arriving.form(asked.receive, asked.headers.get(b"content-type", b""), file, asked.most)
        if route.verb == "POST":
            await answers.aside(lambda: check_names(route, parts))  # 422, as on the public port
            return Sent(parts, file)
        try:
            check_names(route, parts)
        except ValueError as error:
            raise Refused(400, str(error)) from None
        for name, part in parts.items():
            if not (file.size if name == "model" else part.data):
                raise Refused(400, f"the part {name!r} is empty, and nothing has changed")
        return Sent(parts, file)

    async def _serializer(self, step: StepSpec, asked: Asked, sent: Sent) -> str:
        return await self._models.checked(step, sent.file, "", asked.query.get("sha256", ""))

    # ── what is put ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _put(self, sent: Sent, answers: Answers) -> None:
        """The schema or configuration of the model that is live."""
        from ..modelrunner import kept

        await self._usable(kept.NONE, sent, answers)
        async with self._models.changes.alone():
            puts = _read(self._models)
            key = kept.key(puts, kept.live(self._backing.info))
            self._keep({**puts, key: _with(puts.get(key, kept.NONE), sent.parts)})

    async def _bring(self, step: StepSpec, asked: Asked, sent: Sent, serializer: str, answers: Answers) -> Staged:
        """The model is live, and what came with it is in the same moment."""
        from ..modelrunner import kept

        await self._usable(kept.NONE, sent, answers)

        @contextmanager
        def with_it() -> Iterator[None]:
            former = _read(self._models)
            now = former.get(kept.key(former, kept.live(self._backing.info)), kept.NONE)
            self._keep({**former, sent.file.sha256: _with(now, sent.parts)})
            try:
                yield
            except BaseException:
                self._keep(former)
                raise
            self._keep(kept.pruned(_read(self._models), self._models.named()))

        return await self._models.bring(step, sent.file, serializer, wait(asked), live=True, beside=with_it)

    def _keep(self, puts: dict[str, Put]) -> None:
        """Without those that say no more than what holds for all."""
        from ..modelrunner import kept

        always = puts.get(kept.ALWAYS, kept.NONE)
        own = {key: put for key, put in puts.items() if key == kept.ALWAYS or put != always}
        if own != _read(self._models):
            kept.write(self._models.state, own)

    async def _usable(self, put: Put, sent: Sent, answers: Answers) -> None:
        """`Refused` for a schema or configuration that is none."""
        from ..modelrunner import kept
        from ..modelrunner.control import State

        try:
            await answers.aside(lambda: kept.applied(State(None), _with(put, sent.parts)))
        except ValueError as error:
            raise Refused(400, f"{error}; nothing has changed") from None

    # ── what is tried ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _tried(self, route: Route, asked: Asked, sent: Sent, answers: Answers) -> Answer:
        """What the model that came predicts; nobody else is answered by it, unless it is promoted after that."""
        from ..modelrunner.forms import asked as read

        promote, own = asked.flag("promote", False), await answers.now()
        query = urlencode({name: value for name, value in asked.query.items() if name == "operation"}).encode()
        if not sent.file.size:
            raise Refused(400, "the part 'model' is not there, or empty; without it, ask on the public port")
        found = await answers.aside(lambda: read(route, query, sent.parts, own.usable))
        step = self._models.only(asked.query.get("step", ""))
        self._require_alone()
        serializer = await self._serializer(step, asked, sent)
        spec = replace(step, path=sent.file.path.name, sha256=sent.file.sha256, serializer=serializer)

        async def run(instances: list[object], _wished: Wish) -> list[Outcome]:
            return await answers.aside(lambda: isolated(ModelStep(spec, sent.file.path.parent), instances))

        answer = await answers.predicted(found, asked.headers, run)
        if promote:
            await self._bring(step, asked, sent, serializer, answers)
        return answer

    def _require_alone(self) -> None:
        if len(self._models.manifest.steps) > 1 or self._backing.onward is not None:
            raise Refused(
                422, "this model is one of several steps; stage it (?live=false) and ask for it by its version"
            )


def isolated(step: ModelStep, instances: list[object]) -> list[Outcome]:
    """What `step`, which is loaded for it, answers; `Refused` when it cannot be."""
    try:
        step.load()
    except ModelUnusable as error:
        raise Refused(422, f"the model cannot be loaded: {error}") from None
    try:
        results = step.run(instances)
    finally:
        step.close()
    return [
        Outcome(error=result) if isinstance(result, StepFailed) else Outcome(result, [""], None, [step.mark])
        for result in results
    ]


def _with(put: Put, parts: Mapping[str, Part]) -> Put:
    """`ValueError` for what is no text."""
    texts = {name: part.data.decode("utf-8-sig") for name, part in parts.items() if name in ("proto", "modelConfig")}
    return replace(put, proto=texts.get("proto", put.proto), configuration=texts.get("modelConfig", put.configuration))


def _read(models: Models) -> dict[str, Put]:
    from ..modelrunner import kept

    try:
        return kept.read(models.state)
    except ValueError:
        return {}  # what cannot be used is written anew
