"""One paper a file: what each file says of itself, and that nothing else knows of it."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import folkmoot

PACKAGE = Path(folkmoot.__file__).parent
FILES = sorted(path for path in (PACKAGE / "algorithms").glob("*.py") if path.name != "__init__.py")
LISTED = (PACKAGE / "algorithms" / "__init__.py").read_text("utf-8")


@pytest.fixture(params=FILES, ids=[path.stem for path in FILES])
def file(request):
    return request.param


def test_a_file_is_short_enough_to_be_read_beside_its_paper(file):
    assert len(file.read_text("utf-8").splitlines()) <= 200


def test_a_file_names_paper_state_and_cost(file):
    said = ast.get_docstring(ast.parse(file.read_text("utf-8")))

    assert re.search(r"arXiv:\d{4}\.\d{4,5}", said)
    assert re.search(r"\b(19|20)\d\d\b", said)
    assert "State" in said
    assert "cost" in said.lower()


def test_every_file_is_listed_and_every_line_of_the_list_is_a_builder_of_its_file():
    lines = re.findall(r"^from folkmoot\.algorithms\.(\w+) import (\w+) as (\w+)$", LISTED, re.M)

    assert {home for home, _, _ in lines} == {path.stem for path in FILES}
    assert all(name == alias for _, name, alias in lines)
    assert sorted(name for _, name, _ in lines) == folkmoot.algorithms.__all__


OWN = '''"""Mine: half a step of averaging."""

import folkmoot as fm


def mine(work: fm.LocalWork) -> fm.Algorithm:
    """Build it."""
    return fm.fedavg(work, server=fm.optimizers.sgd(0.5))._replace(name="mine")
'''
PROGRAM = """
import torch
import folkmoot as fm

model = torch.nn.Linear(2, 2)
clients = [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1])) for _ in range(2)]
work = fm.local.sgd(fm.classifier(model), lr=0.1)
result = fm.run(fm.mine(work), clients, rounds=1, workers=1, progress=False)
print(fm.__file__, result.name, "mine" in fm.__all__, "mine" in fm.algorithms.__all__)
"""


def test_a_new_algorithm_is_one_file_and_one_line(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "folkmoot", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "folkmoot" / "algorithms" / "mine.py").write_text(OWN)
    listed = tmp_path / "folkmoot" / "algorithms" / "__init__.py"
    line = "from folkmoot.algorithms.mine import mine as mine\n"
    listed.write_text(LISTED.replace("\n\n__all__", f"\n{line}\n__all__"))
    (tmp_path / "program.py").write_text(PROGRAM)

    said = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.returncode == 0, said.stderr
    file, *facts = said.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert facts == ["mine", "True", "True"]
