"""A user's own file that hides one of our packages, in a process of its own."""

from pathlib import Path

import pytest

import telemetry
from telemetry.packages import check_package

HOME = Path(telemetry.__file__).resolve().parent.parent

SCRIPT = """
from telemetry import ShadowedPackageError
from telemetry.packages import check_package

try:
    check_package("handlers")
except ImportError as error:
    assert isinstance(error, ShadowedPackageError)
    print(error)
"""


@pytest.mark.parametrize("name", ["telemetry", "clipping", "regularizers", "handlers"])
def test_our_own_packages_are_found(name):
    assert check_package(name) is None


@pytest.mark.parametrize("shadow", ["handlers.py", "handlers/__init__.py"])
def test_a_file_that_hides_a_package_is_named(run_script, tmp_path, shadow):
    file = tmp_path / shadow
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    done = run_script(SCRIPT)
    assert done.stderr == ""
    assert done.stdout == (
        f"'import handlers' finds {file}, which hides the package "
        f"{HOME / 'handlers' / '__init__.py'} of trainbus. "
        "Rename that file or folder, or start Python from another directory.\n"
    )


def test_a_folder_without_init_hides_nothing(run_script, tmp_path):
    (tmp_path / "handlers").mkdir()
    done = run_script(SCRIPT)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_package_that_does_not_exist_is_an_import_error():
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_package'"):
        check_package("no_such_package")
