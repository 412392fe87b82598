"""The tutorial: script, notebook and page agree, and it runs from its first cell to its last."""

import re

import jupytext
import nbformat
import pytest

from tests.support import tutorial


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(tutorial.NOTEBOOK, as_version=4)


def test_script_and_notebook_are_a_pair(stored):
    wanted = [(x.cell_type, x.source) for x in jupytext.read(tutorial.SCRIPT).cells]
    assert [(x.cell_type, x.source) for x in stored.cells] == wanted
    nbformat.validate(stored)


def test_the_page_shows_the_notebook(stored):
    text, pictures = tutorial.to_page(stored)
    assert tutorial.PAGE.read_text("utf-8") == text and len(pictures) >= 5
    assert {x.name: x.read_bytes() for x in tutorial.PICTURES.iterdir()} == pictures


def test_its_outputs_name_no_machine(stored):
    code = [x for x in stored.cells if x.cell_type == "code"]
    assert sum(bool(x.outputs) for x in code) >= 12
    errors = [x for cell in code for x in cell.outputs if x.output_type == "error"]
    text = "\n".join(
        output.get("text") or output.data.get("text/plain", "")
        for cell in code
        for output in cell.outputs
    )
    assert errors == [] and re.findall(r"(?<![\w.])/(?:home|tmp|root|work|usr)\S*", text) == []


def test_it_runs():
    """With trainings of seconds; the weights that come with the package are the real ones."""
    notebook = tutorial.execute("tiny")
    shown = {kind for cell in notebook.cells for x in cell.get("outputs", ()) if "data" in x
             for kind in x.data}  # fmt: skip
    assert shown == {"text/plain", "image/png", "image/gif"}
