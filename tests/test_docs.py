"""Every command that the README and docs/ show is run: in the order of the page, in an empty folder, for real.

What needs other machines or Docker stands in blocks of their own (```console lab), and runs where the lab is up.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+(?: lab)?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:make|mlpacker|python -m packer_lib\S*) [^`|…]+)`")

# commands that another test, or this very run, holds
ELSEWHERE = {
    "make demo": "tests/demo/test_demo.py",
    "make demo ARGS=--once": "tests/demo/test_demo.py",
    "make test": ".ci/run",
    "make lab": ".ci/run",
    "make modes": "tests/modes/test_modes.py",
    "make faults": "tests/faults/__main__.py",
    "make check": ".ci/run",
    "make lint": ".ci/run",
    "make lock": "tests/bundle/test_lock.py",
    "make bench": "tests/benchmarks/__main__.py",
}


def commands(page: Path, block: str = "console") -> list[str]:
    """The lines after `$ ` in the page's blocks of that kind."""
    blocks = (body for kind, body in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == block)
    return [line[2:] for body in blocks for line in body.splitlines() if line.startswith("$ ")]


def lay_out(page: Path, folder: Path) -> None:
    """Writes each code block of the page whose first line is a comment with a file's name, under that name."""
    for _, body in BLOCK.findall(page.read_text(encoding="utf-8")):
        named = re.match(r"# ([\w.-]+\.(?:yaml|py|json))\n", body)
        if named:
            (folder / named[1]).write_text(body, encoding="utf-8")


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.native
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_work_in_its_order(page: Path, tmp_path: Path) -> None:
    go_through(page, "console", tmp_path, {})


WITH_LAB = [page for page in PAGES if commands(page, "console lab")]


@pytest.mark.lab
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", WITH_LAB, ids=lambda page: page.name)
def test_the_commands_that_need_machines_or_docker_work_in_the_lab(page: Path, tmp_path: Path) -> None:
    from tests.lab import lab

    keys = tmp_path / "home" / "keys"
    keys.mkdir(parents=True, mode=0o700)
    (keys / "plant").touch(0o600)
    (keys / "plant").write_bytes(lab.machine("edge_node").key.read_bytes())
    key = base64.b64decode(lab.machine("edge_node").host_key.split()[1])
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    go_through(page, "console lab", tmp_path, {**lab.settings_env(), "FINGERPRINT": f"SHA256:{digest}"})


def go_through(page: Path, block: str, folder: Path, more: dict[str, str]) -> None:
    """Runs the commands of those blocks in a folder where the page's named files are."""
    work = folder / "work"
    work.mkdir()
    lay_out(page, work)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLPACKER__PATHS__HOME": str(folder / "home"),
        **more,
    }
    try:
        for command in commands(page, block):
            if command.startswith("make "):
                assert (ROOT / ELSEWHERE[command]).exists(), f"{command}: {ELSEWHERE[command]} is gone"
                continue
            if "$ENDPOINT" in command:
                status = json.loads(run("mlpacker status --json", work, environment))
                units = status["units"] if isinstance(status, dict) else status[0]["units"]
                environment["ENDPOINT"] = units[0]["endpoint"]
            run(command, work, environment)
    finally:
        for name in re.findall(r"^id: ([\w-]+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            argv = (str(Path(sys.executable).with_name("mlpacker")), "undeploy", name)
            subprocess.run(argv, env=environment, capture_output=True, check=False)
        stop_everything(environment)


def stop_everything(environment: dict[str, str]) -> None:
    """Ends what a page left running (its own supervisord)."""
    pid = Path(environment["MLPACKER__PATHS__HOME"], "supervisord.pid")
    if pid.exists():
        os.kill(int(pid.read_text()), 15)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_named_in_a_page_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {name.split()[1] for name in INLINE.findall(page.read_text(encoding="utf-8")) if name.startswith("make ")}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_settings_page_names_every_setting_of_the_code() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "packer_lib").rglob("*.py")]
    sections = re.findall(
        r'get(?:\.\w+)?\("([A-Z]+)", "([A-Z_]+)"', (ROOT / "packer_lib/settings.py").read_text(encoding="utf-8")
    )
    named = {name for source in sources for name in re.findall(r"MLPACKER__[A-Z]+__[A-Z_]+[A-Z]", source)}
    wanted = (named | {f"MLPACKER__{section}__{key}" for section, key in sections}) - {"MLPACKER__SECTION__KEY"}
    assert wanted <= set(re.findall(r"`(MLPACKER__\w+)`", page))
