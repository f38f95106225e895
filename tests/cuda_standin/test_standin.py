"""The stand-in for a GPU refuses what CUDA refuses, with its place, and nothing else; it counts waits of the host."""

import pytest

from .conftest import child
from .planted import PLANTED
from .snippets import RIGHT, WAITING, WRONG


@pytest.fixture(scope="module")
def snippets():
    return child("tests.cuda_standin.snippets")[0]


@pytest.fixture(scope="module")
def planted():
    return child("tests.cuda_standin.planted")[0]


@pytest.mark.parametrize("name", RIGHT)
def test_right_code_computes_what_it_computes_on_the_cpu(snippets, name):
    assert snippets["right"][name] == ""


@pytest.mark.parametrize("name", WRONG)
def test_what_cuda_refuses_is_refused_with_its_place(snippets, name):
    message = snippets["wrong"][name]
    assert WRONG[name][1] in message
    assert "tests/cuda_standin/snippets.py:" in message


@pytest.mark.parametrize("name", WAITING)
def test_waits_are_counted_by_kind(snippets, name):
    assert snippets["waiting"][name] == WAITING[name][1]


@pytest.mark.parametrize("name", PLANTED)
def test_error_planted_in_the_port_is_told_with_its_place(planted, name):
    error = PLANTED[name]
    assert f"{error.place}:" in planted[name] and error.operation in planted[name]
