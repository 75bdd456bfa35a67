"""Every reason that a handler gives for a loss is explained in the documentation."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GIVEN = {"Losses": 1}  # which argument says the reason
TABLES = {"REASONS", "ENDS"}


def policies(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            place = GIVEN.get(node.func.id)
            if place is not None and isinstance(node.args[place], ast.Constant):
                yield node.args[place].value
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") in TABLES:
            yield from (key.value for key in node.value.keys)


def used():
    for path in (ROOT / "handlers").glob("*.py"):
        for policy in policies(ast.parse(path.read_text())):
            yield path.name, policy


def documented():
    page = (ROOT / "docs" / "handlers" / "delivery.md").read_text()
    table = page.partition("| `policy` |")[2].partition("\n\n")[0]
    return set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.split("\n")[2:])))


@pytest.mark.parametrize(("file", "policy"), sorted(used()))
def test_each_reason_is_in_the_table(file, policy):
    assert policy in documented()


def test_the_table_has_no_other():
    assert documented() == {policy for _, policy in used()} | {
        "drop_oldest",
        "drop_newest",
        "block",
    }
