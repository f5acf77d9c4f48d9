"""What `folkmoot.data` shows, and what importing it costs."""

import subprocess
import sys

import folkmoot.data


def test_the_public_names_are_sorted_and_there():
    names = folkmoot.data.__all__

    assert names == sorted(names)
    assert all(hasattr(folkmoot.data, name) for name in names)
    # Also after the file of the same name was imported, load is the function.
    assert callable(folkmoot.data.load)


def test_optional_libraries_are_imported_only_by_the_readers_that_need_them():
    code = (
        "import sys, folkmoot.data; "
        "print([m for m in ('pandas', 'h5py', 'datasets', 'matplotlib') if m in sys.modules])"
    )

    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert shown.strip() == "[]"
