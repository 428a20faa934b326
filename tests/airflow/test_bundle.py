"""The watched folder as a DAG bundle: what each state of a file becomes, and that versions stay what they were."""

from __future__ import annotations

import ast
import os
import stat
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import BundleDagBag
from hypothesis import given, settings
from hypothesis import strategies as st
from mlpacker_airflow import folder, retire
from mlpacker_airflow.bundle import PadlDagBundle
from mlpacker_airflow.pinned import Pinned, dag_file

from tests.airflow import padls

BROKEN = '{\n  "version": "1.1",\n  "id": "broken",\n  "contanerized": false\n}\n'


@pytest.fixture
def pipelines(tmp_path: Path) -> Path:
    place = tmp_path / "pipelines"
    place.mkdir()
    return place


@pytest.fixture
def bundle(pipelines: Path) -> PadlDagBundle:
    return PadlDagBundle(name=f"b-{uuid.uuid4().hex}", source=str(pipelines), refresh_interval=1)


def put(place: Path, content: str | dict[str, Any]) -> Path:
    """A file written a while ago."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content if isinstance(content, str) else padls.text(content), encoding="utf-8")
    long_ago = time.time() - 60
    os.utime(place, (long_ago, long_ago))
    return place


def names(bundle: PadlDagBundle) -> list[str]:
    found = (path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*.py"))
    return sorted(name for name in found if name != retire.FILE)


def bag(bundle: PadlDagBundle) -> BundleDagBag:
    return BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)


def version(bundle: PadlDagBundle) -> str:
    current = bundle.get_current_version()
    assert current is not None
    return current.version


def test_each_file_is_a_dag_of_its_own(pipelines: Path, bundle: PadlDagBundle) -> None:
    put(pipelines / "one.json", padls.rest("one"))
    put(pipelines / "two.yaml", padls.rest("two"))
    bundle.initialize()
    assert names(bundle) == ["one.json.py", "two.yaml.py"]
    assert set(bag(bundle).dags) == {"mlpacker.one", "mlpacker.two"}


def test_a_broken_file_shows_its_whole_report_and_disturbs_no_other(pipelines: Path, bundle: PadlDagBundle) -> None:
    for number in range(20):
        put(pipelines / f"good{number}.json", padls.rest(f"good{number}"))
    put(pipelines / "broken.json", BROKEN)
    bundle.initialize()
    found = bag(bundle)
    assert len(found.dags) == 20
    assert list(found.import_errors) == ["broken.json.py"]
    report = found.import_errors["broken.json.py"]
    assert "broken.json:4:3: contanerized: unknown key 'contanerized' (did you mean 'containerized'?)" in report
    assert "missing 'pipeline'" in report
    assert "Traceback" not in report


def test_an_edit_is_a_new_version_and_leaves_the_former_as_it_was(pipelines: Path, bundle: PadlDagBundle) -> None:
    put(pipelines / "same.json", padls.rest("same"))
    put(pipelines / "edited.json", padls.rest("edited"))
    bundle.initialize()
    former, first = bundle.path, version(bundle)
    put(pipelines / "edited.json", padls.rest("edited", description="with words"))
    bundle.refresh()
    assert version(bundle) != first
    assert "with words" in (bundle.path / "edited.json.py").read_text()
    assert "with words" not in (former / "edited.json.py").read_text()
    assert (bundle.path / "same.json.py").samefile(former / "same.json.py")

    task = PadlDagBundle(name=bundle.name, source=str(pipelines), version=first)
    task.initialize()
    assert task.path == former
    assert bag(task).dags["mlpacker.edited"].description is None


def test_a_run_whose_version_is_gone_is_told_so(pipelines: Path, bundle: PadlDagBundle) -> None:
    task = PadlDagBundle(name=bundle.name, source=str(pipelines), version="0123456789abcdef")
    with pytest.raises(FileNotFoundError, match="version 0123456789abcdef"):
        task.initialize()


def test_what_changed_is_dated_anew_and_nothing_else(pipelines: Path, bundle: PadlDagBundle) -> None:
    """Airflow parses a known file again only when its date is later than the last parse."""
    first, second = padls.rest("one"), padls.rest("one", description="other")
    put(pipelines / "one.json", first)
    put(pipelines / "still.json", padls.rest("still"))
    bundle.initialize()
    for content in (second, first):
        for path in bundle.path.glob("*.py"):
            os.utime(path, (1.0, 1.0))
        parsed = time.time()
        put(pipelines / "one.json", content)
        bundle.refresh()
        assert (bundle.path / "one.json.py").stat().st_mtime > parsed
        assert (bundle.path / "still.json.py").stat().st_mtime == 1.0


def test_what_changed_is_dated_anew_again_in_case_a_slow_parse_of_the_former_text_ended_later(
    pipelines: Path, bundle: PadlDagBundle
) -> None:
    put(pipelines / "one.json", padls.rest("one"))
    bundle.initialize()
    path, begun = bundle.path / "one.json.py", time.time()
    dates = []
    for later in range(0, 120, 5):
        bundle.clock = lambda later=later: begun + later + 1  # type: ignore[misc]
        bundle.refresh()
        dates.append(path.stat().st_mtime - begun)
    assert sorted({round(date) for date in dates}) == [2, 6, 21, 61]


def since(bundle: PadlDagBundle) -> Any:
    return bag(bundle).dags["mlpacker.one"].timetable.changed.timestamp()


def test_a_file_is_as_old_as_its_text_however_it_came_here(pipelines: Path, bundle: PadlDagBundle) -> None:
    before = time.time() - 1
    path = put(pipelines / "one.json", padls.rest("one"))
    bundle.initialize()
    first = since(bundle)
    assert first > before  # its own date is a minute ago
    path.touch()
    path.chmod(0o600)
    os.utime(path, (1.0, 1.0))
    bundle.refresh()
    assert since(bundle) == first
    put(path, padls.rest("one", description="other"))
    bundle.refresh()
    second = since(bundle)
    assert second > first
    path.unlink()
    bundle.refresh()
    put(path, padls.rest("one", description="other"))
    bundle.refresh()
    assert since(bundle) > second


def test_a_removed_file_is_gone_from_the_next_version(pipelines: Path, bundle: PadlDagBundle) -> None:
    put(pipelines / "one.json", padls.rest("one"))
    put(pipelines / "two.json", padls.rest("two"))
    bundle.initialize()
    (pipelines / "two.json").unlink()
    bundle.refresh()
    assert names(bundle) == ["one.json.py"]


def test_a_file_that_is_being_written_stays_what_it_was(pipelines: Path, bundle: PadlDagBundle) -> None:
    put(pipelines / "one.json", padls.rest("one"))
    bundle.initialize()
    before = version(bundle)
    (pipelines / "one.json").write_text('{"version": "1.1", "id": "o')
    (pipelines / "new.json").write_text('{"version"')
    bundle.refresh()
    assert version(bundle) == before
    put(pipelines / "one.json", padls.rest("one", description="done"))
    put(pipelines / "new.json", padls.rest("new"))
    bundle.refresh()
    assert set(bag(bundle).dags) == {"mlpacker.one", "mlpacker.new"}


def test_a_file_that_is_moved_in_is_taken_at_once(pipelines: Path, bundle: PadlDagBundle) -> None:
    elsewhere = put(pipelines.parent / "draft.json", padls.rest("one"))
    bundle.initialize()
    elsewhere.rename(pipelines / "one.json")
    bundle.refresh()
    assert names(bundle) == ["one.json.py"]


def test_hidden_temporary_and_foreign_files_are_ignored(pipelines: Path, bundle: PadlDagBundle) -> None:
    for name in (".one.json", ".one.json.swp", "one.json~", "one.json.part", "#one.json#", "code.py", ".git/x.json"):
        put(pipelines / name, padls.rest("one"))
    (pipelines / "folder.json").mkdir()
    (pipelines / "dangling.json").symlink_to("nowhere.json")
    os.mkfifo(pipelines / "pipe.json")
    bundle.initialize()
    assert names(bundle) == []


def test_a_link_that_leads_out_of_the_folder_is_reported_and_not_read(pipelines: Path, bundle: PadlDagBundle) -> None:
    put(pipelines.parent / "secret.json", padls.rest("secret", description="not for you"))
    (pipelines / "link.json").symlink_to("../secret.json")
    put(pipelines / ".data" / "real.json", padls.rest("real"))
    (pipelines / "inside.json").symlink_to(".data/real.json")
    bundle.initialize()
    found = bag(bundle)
    assert "leads out of the watched folder" in found.import_errors["link.json.py"]
    assert set(found.dags) == {"mlpacker.real"}
    assert not any("not for you" in path.read_text() for path in bundle.path.iterdir() if path.is_file())


@pytest.mark.parametrize("content", [b"PK\x05\x06" + bytes(18), b"\xff\xfe\x00", b"", b"[" * 100_000, b"\x00"])
def test_no_content_is_worse_than_an_import_error(pipelines: Path, bundle: PadlDagBundle, content: bytes) -> None:
    put(pipelines / "good.json", padls.rest("good"))
    put(pipelines / "odd.json", "").write_bytes(content)
    os.utime(pipelines / "odd.json", (1.0, 1.0))
    bundle.initialize()
    found = bag(bundle)
    assert set(found.dags) == {"mlpacker.good"}
    assert found.import_errors["odd.json.py"].startswith("PadlInvalid: odd.json:1:")


def test_two_files_with_one_id_are_an_error_in_both_until_one_is_gone(pipelines: Path, bundle: PadlDagBundle) -> None:
    put(pipelines / "a.json", padls.rest("same"))
    put(pipelines / "b.yaml", padls.rest("same"))
    bundle.initialize()
    errors = bag(bundle).import_errors
    assert "a.json:3:9: id: the id 'same' is also in" in errors["a.json.py"]
    assert "b.yaml" in errors["a.json.py"]
    assert "a.json" in errors["b.yaml.py"]
    (pipelines / "b.yaml").unlink()
    bundle.refresh()
    found = bag(bundle)
    assert (set(found.dags), found.import_errors) == ({"mlpacker.same"}, {})


def test_an_example_is_a_dag_until_a_file_of_its_id_is_there(pipelines: Path, bundle: PadlDagBundle) -> None:
    put(pipelines / "examples" / "deep" / "iris.json", padls.rest("iris", schedule="@daily"))
    bundle.initialize()
    example = bag(bundle).dags["mlpacker.iris"]
    assert example.relative_fileloc == "examples/deep/iris.json.py"
    assert "example" in example.tags
    put(pipelines / "mine.json", padls.rest("iris"))
    bundle.refresh()
    found = bag(bundle)
    assert found.import_errors == {}
    assert "example" not in found.dags["mlpacker.iris"].tags


def test_nothing_is_written_while_nothing_changes(pipelines: Path, bundle: PadlDagBundle) -> None:
    put(pipelines / "one.json", padls.rest("one"))
    bundle.initialize()
    before = {path: path.stat().st_mtime_ns for path in bundle.base_dir.rglob("*")}
    bundle.refresh()
    assert {path: path.stat().st_mtime_ns for path in bundle.base_dir.rglob("*")} == before


def test_without_the_folder_the_dags_stay(pipelines: Path, bundle: PadlDagBundle) -> None:
    put(pipelines / "one.json", padls.rest("one"))
    bundle.initialize()
    pipelines.rename(pipelines.with_name("unmounted"))
    with pytest.raises(OSError, match="pipelines"):
        bundle.refresh()
    assert names(bundle) == ["one.json.py"]


def test_a_version_that_was_tidied_away_is_made_again(pipelines: Path, bundle: PadlDagBundle) -> None:
    import shutil

    put(pipelines / "one.json", padls.rest("one"))
    bundle.initialize()
    shutil.rmtree(bundle.path)
    bundle.refresh()
    assert set(bag(bundle).dags) == {"mlpacker.one"}


def test_a_password_is_kept_for_our_user_only_and_shown_nowhere(pipelines: Path, bundle: PadlDagBundle) -> None:
    put(pipelines / "lines.json", padls.stream(password="hunter2-s3cret"))
    bundle.initialize()
    assert "hunter2" not in (bundle.path / "lines.json.py").read_text()
    assert '"pass": "(hidden)"' in (bundle.path / "lines.json.py").read_text()
    assert stat.S_IMODE((bundle.path / "lines.json.pinned").stat().st_mode) == 0o600


def test_relative_model_paths_start_at_the_file_that_was_dropped(pipelines: Path, bundle: PadlDagBundle) -> None:
    put(pipelines / "deep" / "one.json", padls.rest("one"))
    bundle.initialize()
    planned = bag(bundle).dags["mlpacker.one"].get_task("validate").planned
    assert planned.file == str(pipelines / "deep" / "one.json")


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="/\0"), min_size=1))
@settings(max_examples=300, deadline=None)
def test_no_text_and_no_file_name_becomes_code(text: str, name: str) -> None:
    made = dag_file(Pinned(f"{name}.yaml", f"/pipelines/{name}.yaml", text, 0.0, False, (), (text,)))
    plain = dag_file(Pinned("a.yaml", "/a.yaml", "", 0.0, False, (), ()))
    assert ast.dump(ast.parse(made)) == ast.dump(ast.parse(plain))


def test_scanning_a_thousand_files_is_cheap_enough_for_once_a_second(pipelines: Path) -> None:
    for number in range(1000):
        put(pipelines / f"{number}.json", "{}")
    begun = time.perf_counter()
    assert len(folder.scan(pipelines)) == 1000
    assert time.perf_counter() - begun < 0.5
