"""The notebook runs from its first cell to its last, in a kernel of its own."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_steps.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after a run of all of its cells."""
    tmp_path = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    with pytest.MonkeyPatch.context() as patch:
        # Jupyter's files go where this test's do.
        for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(variable, str(tmp_path / variable.lower()))
        return client.execute()


def shown(notebook, kind):
    """The outputs of a kind of all cells."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def test_the_notebook_shows_its_result_and_a_picture(executed):
    assert any("accuracy" in html for html in shown(executed, "text/html"))
    assert shown(executed, "image/png")


def test_the_notebook_is_stored_without_outputs():
    stored = nbformat.read(NOTEBOOK, as_version=4)

    assert [
        cell.outputs for cell in stored.cells if cell.cell_type == "code" and cell.outputs
    ] == []


def test_the_notebook_shows_how_a_run_goes_in_one_line_and_warns_of_nothing(executed):
    lines = [text for text in shown(executed, "text/plain") if text.startswith("round 30/30")]
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]

    assert len(lines) == 2
    assert not [output for output in outputs if output.get("name") == "stderr"]
