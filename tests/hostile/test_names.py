"""Two units never share a name: of an image, a container, a volume, a repository (T21). Ids as a PADL may have them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from packer_lib.images import names
from packer_lib.images.model import Registry

EDGE = st.text("ab0.-_", max_size=8)
PIPELINES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True) | EDGE.map(lambda text: f"a{text}")
UNITS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True) | EDGE.map(lambda text: f"a{text.replace('.', '')}")
RELEASES = st.from_regex(r"[0-9a-f]{12}", fullmatch=True)
PAIRS = st.tuples(PIPELINES, UNITS)
# https://github.com/distribution/reference: path-component; the engine's own pattern for containers and volumes
COMPONENT = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")
OBJECT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def neighbours(pair: tuple[str, str]) -> st.SearchStrategy[tuple[str, str]]:
    """The same pair, or one that is nearly the same."""
    pipeline, unit = pair
    near = [(pipeline.replace("-", "_"), unit), (pipeline.replace(".", "-"), unit.replace("_", "-"))]
    return st.sampled_from([pair, *near, (f"{pipeline}.", unit), (f"{pipeline}.{unit}", unit), (pipeline, f"{unit}-")])


TWO = PAIRS.flatmap(lambda pair: st.tuples(st.just(pair), PAIRS | neighbours(pair)))


@given(TWO)
def test_images_of_two_units_have_two_names(two: tuple[tuple[str, str], tuple[str, str]]) -> None:
    one, other = two
    assert (names.image(*one) == names.image(*other)) == (one == other)


@given(TWO)
def test_so_have_they_in_a_registry_with_and_without_a_folder(two: tuple[tuple[str, str], tuple[str, str]]) -> None:
    one, other = two
    for host in ("registry.example:5000", "registry.example/team"):
        registry = Registry(host)
        pushed = [names.pushed(registry, f"{names.image(*pair)}:tag") for pair in (one, other)]
        assert (pushed[0] == pushed[1]) == (one == other)


@given(TWO, RELEASES, RELEASES)
def test_containers_doors_and_volumes_of_two_units_have_two_names(
    two: tuple[tuple[str, str], tuple[str, str]], release: str, release2: str
) -> None:
    one, other = two
    containers = [names.container(*one, release), names.container(*other, release2)]
    assert (containers[0] == containers[1]) == ((one, release) == (other, release2))
    assert (names.door(*one) == names.door(*other)) == (one == other)
    assert (names.volume(*one) == names.volume(*other)) == (one == other)
    assert len({names.door(*one), *containers} & {names.door(*other), names.volume(*one)}) == (one == other)


@given(PAIRS, RELEASES)
def test_docker_takes_every_name_and_none_is_an_option(pair: tuple[str, str], release: str) -> None:
    for component in names.image(*pair).split("/"):
        assert COMPONENT.fullmatch(component)
    assert len(names.image(*pair)) <= 255
    for name in (names.container(*pair, release), names.door(*pair), names.volume(*pair)):
        assert OBJECT.fullmatch(name)


@given(TWO, RELEASES)
def test_a_container_s_name_says_whose_it_is(two: tuple[tuple[str, str], tuple[str, str]], release: str) -> None:
    """So that looking for the containers of one pipeline cannot find another's (compare whole ids)."""
    for pair in two:
        _, _, rest = names.container(*pair, release).partition(".")
        pipeline, unit, found = rest.rsplit(".", 2)
        assert ((pipeline, unit), found) == (pair, release)
