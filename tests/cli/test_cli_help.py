"""Help and version: what there is to type, without waiting for torch."""

import subprocess
import sys

import pytest

from folkmoot.core import VERSION

LOADED = """
import sys
from folkmoot.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"], ["list", "-h"]])
def test_help_and_version_load_neither_torch_nor_numpy(words):
    ended = subprocess.run(
        [sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=True
    )

    assert not {"torch", "numpy", "matplotlib"} & set(ended.stderr.split())


def test_version_names_the_package(folkmoot):
    assert folkmoot("--version").stdout == f"folkmoot {VERSION}\n"


@pytest.mark.parametrize("command", ["", "demo", "new", "run", "check", "privacy", "list"])
def test_every_help_names_the_exit_codes(folkmoot, command):
    said = " ".join(folkmoot(f"{command} --help").stdout.split())

    assert "0 good; 2 usage, settings or data; 3 your code; 4 too few clients" in said


def test_a_command_that_is_nearly_right_is_a_usage_error_with_the_right_one(folkmoot):
    ended = folkmoot("rn")

    assert ended.exit_code == 2
    assert "Did you mean 'run'?" in ended.stderr
