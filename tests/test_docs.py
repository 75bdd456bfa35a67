"""The documentation's blocks run, and print what the block after them says."""

import contextlib
import io
import logging
from pathlib import Path

import pytest
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser

import telemetry
from telemetry.events import CATALOGUE

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def run_python(example):
    output = io.StringIO()
    code = compile(example.parsed, example.document.path, "exec", dont_inherit=True)
    with contextlib.redirect_stdout(output):
        exec(code, example.namespace)  # noqa: S102 -- the documentation's own code
    example.namespace["__output__"] = output.getvalue()


def compare_output(example):
    assert example.parsed.strip() == example.namespace["__output__"].strip()


PARSERS = [CodeBlockParser("python", run_python), CodeBlockParser("text", compare_output)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_snippet_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.CRITICAL, logger="telemetry")
    document = Document.parse(str(page), *PARSERS)
    document.namespace["__name__"] = "__main__"
    for example in document.examples():
        example.evaluate()
    assert telemetry.list_handlers() == []


def test_the_event_page_is_rendered_from_the_catalogue():
    rows = (ROOT / "docs" / "events.md").read_text().splitlines()
    named = [row.split("`")[1] for row in rows if row.startswith("| `")]
    assert named == [spec.dotted for spec in CATALOGUE]
    namespace = {"__file__": str(ROOT / "docs" / "render_events.py"), "__name__": "render_events"}
    exec((ROOT / "docs" / "render_events.py").read_text(), namespace)  # noqa: S102
    assert (ROOT / "docs" / "events.md").read_text() == namespace["render"](), "run `make docs`"


def test_the_names_of_the_metrics_page_are_rendered_from_the_defaults():
    page = ROOT / "docs" / "render_metrics.py"
    namespace = {"__file__": str(page), "__name__": "render_metrics"}
    exec(page.read_text(), namespace)  # noqa: S102 -- the documentation's own code
    assert (ROOT / "docs" / "handlers" / "metrics.md").read_text() == namespace["render"](), (
        "run `make docs`"
    )


def test_links_between_pages_lead_somewhere():
    import re

    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
