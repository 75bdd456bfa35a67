"""trackio's database of a test's project."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

import handlers


@pytest.fixture
def project(request):
    """A project for this test alone: trackio keeps one directory for the whole process."""
    return "".join(c for c in request.node.name if c.isalnum())[:60]


@pytest.fixture
def attach(bus, project):
    def attach(**options):
        return handlers.attach(
            "trackio", registry=bus, **{"project": project, "name": "a"} | options
        )

    return attach


@pytest.fixture
def database(project):
    """The file of the test's project."""
    return Path(os.environ["TRACKIO_DIR"]) / f"{project}.db"


@pytest.fixture
def select(database):
    """Ask the database of the test's project."""

    def select(query, folder=database.parent):
        with sqlite3.connect(folder / database.name) as connection:
            found = connection.execute(query).fetchall()
        connection.close()
        return found

    return select


@pytest.fixture
def rows(select):
    """The rows of the project, as (step, values)."""

    def rows(*folder):
        found = select("select step, metrics from metrics order by id", *folder)
        return [(step, json.loads(values)) for step, values in found]

    return rows
