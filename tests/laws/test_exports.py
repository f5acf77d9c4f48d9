"""The public face: a table of names, each with one home, read when a name is used."""

import importlib
import subprocess
import sys

import pytest

import folkmoot


def modules_after(statement):
    """The modules that a fresh interpreter holds after one statement."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True).split())


def test_all_names_exactly_the_table():
    assert sorted(folkmoot.__all__) == sorted(folkmoot._HOMES)


@pytest.mark.parametrize("name", folkmoot._HOMES)
def test_every_name_is_the_object_at_its_home(name):
    module, _, attribute = folkmoot._HOMES[name].partition(":")
    home = importlib.import_module(module)

    assert getattr(folkmoot, name) is (getattr(home, attribute) if attribute else home)


def test_the_table_answers_dir_and_refuses_other_names():
    assert set(folkmoot._HOMES) <= set(dir(folkmoot))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = folkmoot.no_such_name


def test_importing_the_package_imports_neither_torch_nor_numpy():
    assert not modules_after("import folkmoot") & {"torch", "numpy"}
