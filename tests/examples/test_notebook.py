"""The notebooks run from their first cell to their last, each in a kernel of its own."""

import nbformat
import pytest
from nbclient import NotebookClient
from promises import EXAMPLES

NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
_DONE = {}


@pytest.fixture
def executed(tmp_path_factory):
    """A function from a notebook's path to the notebook after a run of all of its cells."""

    def run(path):
        if path not in _DONE:
            _DONE[path] = _executed(path, tmp_path_factory.mktemp(path.stem))
        return _DONE[path]

    return run


def _executed(path, folder):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    with pytest.MonkeyPatch.context() as patch:
        # Jupyter's files go where this test's do.
        for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(variable, str(folder / variable.lower()))
        return client.execute()


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def shown(notebook, kind):
    """The outputs of a kind of all cells."""
    return [o["data"][kind] for o in outputs(notebook) if kind in o.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_shows_something_and_warns_of_nothing(path, executed):
    done = executed(path)

    assert shown(done, "text/plain")
    assert not [output for output in outputs(done) if output.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    assert outputs(nbformat.read(path, as_version=4)) == []


def test_first_steps_shows_its_result_and_a_picture(executed):
    done = executed(EXAMPLES / "first_steps.ipynb")

    assert any("accuracy" in html for html in shown(done, "text/html"))
    assert shown(done, "image/png")


def test_first_steps_shows_how_a_run_goes_in_one_line(executed):
    done = executed(EXAMPLES / "first_steps.ipynb")

    lines = [text for text in shown(done, "text/plain") if text.startswith("round 30/30")]
    assert len(lines) == 2


def test_what_leaves_shows_masks_a_guarantee_and_a_refusal(executed):
    done = executed(EXAMPLES / "what_leaves.ipynb")

    printed = [output["text"] for output in outputs(done) if output.get("name") == "stdout"]
    assert any("epsilon 7.9" in text or "epsilon 8" in text for text in printed)
    assert any("over the budget of 10" in text for text in printed)
