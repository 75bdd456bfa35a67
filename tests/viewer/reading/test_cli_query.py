"""``telemetry query``, as its user calls it."""

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from telemetry.cli import commands

QUERY = [sys.executable, "-W", "error", "-m", "telemetry", "query"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def log(write, step_of):
    first = [step_of(step, 4.0 / step, run_id="r", attempt=1) for step in (1, 2, 4)]
    return write("log.jsonl", [*first, step_of(4, 0.5, run_id="r", attempt=2), {"host": "7"}])


@pytest.fixture
def query():
    return lambda *arguments: CliRunner().invoke(commands, ["query", *map(str, arguments)])


@pytest.fixture
def on_terminal(log, folder):
    """What a terminal of 80 columns is sent."""

    def send(*arguments):
        master, slave = pty.openpty()
        with subprocess.Popen(
            [*QUERY, *arguments, "log.jsonl"],
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
        ):
            os.close(slave)
            shown = b""
            with os.fdopen(master, "rb", buffering=0) as terminal:
                try:
                    while piece := terminal.read(1 << 16):
                        shown += piece
                except OSError:
                    pass  # the terminal's end on Linux
        return shown.decode().replace("\r", "")

    return send


def test_a_table_is_printed(query, log):
    sql = 'select step, "training.loss" as loss, event from metrics where step > 1 order by 1'
    result = query(sql, log)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "step  loss  event",
        "   2     2  training.step",
        "   4   0.5  training.step",
    ]


def test_records_have_what_was_superseded_as_well(query, log):
    sql = "select step, superseded, measurements->>'loss' as loss from records where step = 4"
    assert query(f"{sql} order by 3 desc", log).stdout.splitlines() == [
        "step  superseded  loss",
        "   4  true        1.0",
        "   4  false       0.5",
    ]


def test_the_views_are_listed(query, log):
    lines = query("--tables", log, "--csv").stdout.splitlines()
    assert lines[0] == "view,column,type,metric"
    records = [line.split(",")[1] for line in lines if line.startswith("records,")]
    assert records == [
        "source",
        "run",
        "timestamp",
        "event",
        "step",
        "epoch",
        "run_id",
        "attempt",
        "superseded",
        "measurements",
        "metadata",
    ]
    metrics = [line for line in lines if line.startswith("metrics,")]
    assert metrics[-1] == "metrics,training.loss,DOUBLE,"
    assert len(metrics) == 6  # "7" is no number


def test_as_csv_every_value_is_exact(query, log):
    sql = """select 0.1::double + 0.2::double as sum, null as none, true as yes, 'a"b,c' as text,
        'nan'::double as nan, [1, 2] as list, timestamp '2026-01-02 03:04:05' as moment,
        'two\nlines' as more, 1.50::decimal(4, 2) as price"""
    header, row = csv.reader(io.StringIO(query(sql, log, "--csv").stdout))
    assert dict(zip(header, row, strict=True)) == {
        "sum": "0.30000000000000004",
        "none": "",
        "yes": "true",
        "text": 'a"b,c',
        "nan": "NaN",
        "list": "[1,2]",
        "moment": "2026-01-02T03:04:05",
        "more": "two\nlines",
        "price": "1.50",
    }


def test_as_json_values_are_values(query, log):
    sql = """select step, measurements, 'nan'::double as nan, null as none, 1.5 as price,
        interval 1 day as day, step, sum(1) over () as n from records where step = 1"""
    (row,) = json.loads(query(sql, log, "--json").stdout)
    assert row == {
        "step": 1,
        "measurements": {"loss": 4.0},
        "nan": "NaN",
        "none": None,
        "price": 1.5,
        "day": "1 day, 0:00:00",
        "step_2": 1,
        "n": 1,
    }
    assert query("select 1 where false", log, "--json").stdout == "[]\n"


def test_several_runs_are_asked_at_once(query, log, write, step_of):
    write("runs/b/metrics.jsonl", [step_of(1, 9.0)])
    sql = 'select run, min("training.loss") as best from metrics group by run order by run'
    lines = query(sql, log, "runs", "--csv").stdout.splitlines()
    assert lines == ["run,best", "log,", "metrics,9.0", "r,0.5"]
    assert query("select count(*) as n from records", "--csv").stdout == "n\n1\n"  # the folder runs


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('log.jsonl')",
        "select * from read_csv('/etc/hostname')",
        "select * from 'log.jsonl'",
        "select * from glob('*')",
        "copy (select 1) to 'out.csv'",
        "attach 'other.db'",
        "export database 'out'",
        "install httpfs",
        "load httpfs",
        "select * from read_csv('http://127.0.0.1:9/x.csv')",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "reset temp_directory",
    ],
)
def test_sql_reaches_nothing_but_the_runs(query, log, folder, sql):
    before = log.read_bytes()
    result = query(sql, log)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert [path.name for path in folder.iterdir()] == ["log.jsonl"]
    assert log.read_bytes() == before


def test_variables_of_the_program_are_no_tables(query, log):
    assert query("select * from sources", log).exit_code == 1


def test_errors_of_sql_are_shown_with_the_nearest_column(query, log):
    result = query('select "train.loss" from metrics', log)
    assert result.exit_code == 1
    assert 'Referenced column "train.loss" not found' in result.stderr
    assert 'Candidate bindings: "training.loss"' in result.stderr
    bare = query("select training.loss from metrics", log)
    assert bare.stderr.endswith('Names with dots stand in double quotes: "training.loss".\n')
    assert 'syntax error at or near "selct"' in query("selct 1", log).stderr
    late = query("select (100 - step::int)::utinyint / 0, error('late') from records", log)
    assert (late.exit_code, "late" in late.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Which SQL? Write for example: telemetry query 'select count(*) from records' runs"),
        (["  "], "The SQL is empty."),
    ],
)
def test_without_sql_it_is_said_how(query, arguments, message):
    result = query(*arguments)
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: {message}\n")


@pytest.mark.parametrize("word", ["log.jsonl", ".", "no.jsonl", "runs/no.jsonl.gz", "l*"])
def test_a_log_in_place_of_the_sql_is_not_read(query, log, word):
    result = query(word)
    assert result.exit_code == 2
    assert "Which SQL? Write for example: " in result.stderr


def test_sql_that_looks_like_a_path_is_sql(query, log):
    assert query(f"select({'1' * 300}>0)as'one'", log, "--csv").stdout == "one\ntrue\n"
    assert query(f"select 1 as one /* {'x' * 300} */", log, "--csv").stdout == "one\n1\n"


def test_what_is_missing_is_said(query, folder):
    assert query("select 1", "no.jsonl").stderr == "Error: There is no file 'no.jsonl'.\n"
    assert "has no log" in query("select 1").stderr
    (folder / "empty.jsonl").touch()
    assert query("select count(*) as n from records", "empty.jsonl").stdout == "n\n0\n"
    assert query("select * from metrics", "empty.jsonl", "--csv").stdout == (
        "run,timestamp,event,step,epoch\n"
    )


def test_no_name_stands_for_two_metrics(query, write):
    write("a.jsonl", [{"loss": 1, "Loss": 2, "loss_1": 3, 'a"; drop view metrics --': 4}])
    write("b.jsonl", [{"Run": 5}])
    table = csv.reader(io.StringIO(query("--tables", "a.jsonl", "b.jsonl", "--csv").stdout))
    told = [(name, metric) for view, name, _, metric in table if view == "metrics"]
    assert told[5:] == [
        ("loss_2", "loss"),
        ("Loss_3", "Loss"),
        ("loss_1", ""),
        ('a"; drop view metrics --', ""),
        ("Run_1", "Run"),
    ]
    sql = "select loss_1, loss_2, loss_3, run_1 from metrics order by run"
    lines = query(sql, "a.jsonl", "b.jsonl", "--csv").stdout.splitlines()
    assert lines == ["loss_1,loss_2,Loss_3,Run_1", "3.0,1.0,2.0,", ",,,5.0"]
    ambiguous = query('select "loss" from metrics', "a.jsonl")
    assert (ambiguous.exit_code, "loss_2" in ambiguous.stderr) == (1, True)


def test_control_characters_are_escaped_in_tables(query, log):
    assert query("select 'a' || chr(27) || '[2J' as x", log).stdout == "x\na\\x1b[2J\n"


def test_rows_are_not_gathered_before_they_are_printed(log, folder):
    sql = "select range as n from range(100_000_000_000)"
    command = f"{' '.join(QUERY)} '{sql}' log.jsonl"
    for form in ("", "--csv", "--json"):
        shell = f"{command} {form} | head -n 3; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", shell],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "0"
        assert len(done.stdout.splitlines()) == 4


def test_ctrl_c_ends_it_without_a_traceback(log, folder):
    sql = "select range as n from range(100_000_000_000)"
    with subprocess.Popen(
        [*QUERY, sql, "log.jsonl", "--csv"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "n\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.strip() == ""
    assert "Traceback" not in output


def test_rows_too_wide_for_a_terminal_are_blocks(log, on_terminal):
    text = on_terminal("select 'x' as a, repeat('y', 100) as long_name from records where step = 1")
    assert "row 1" in text
    assert "long_name" in text
    assert "y" * 100 in text


RED = "select 'a' || chr(27) || '[31m' || chr(10) || chr(155) as x"


def test_files_and_pipes_get_what_the_values_are(query, log):
    assert query(RED, log, "--csv").stdout_bytes == 'x\n"a\x1b[31m\n\x9b"\n'.encode()
    assert json.loads(query(RED, log, "--json").stdout) == [{"x": "a\x1b[31m\n\x9b"}]
    assert "\x9b" in query(RED, log, "--json").stdout


def test_a_terminal_gets_no_control_characters(on_terminal):
    assert on_terminal(RED, "--csv") == "x\na\\x1b[31m\\n\\x9b\n"
    assert on_terminal(RED, "--json") == '[\n{"x":"a\\u001b[31m\\n\\u009b"}\n]\n'


def test_what_is_within_lists_and_structures_is_plain_as_well(query, log):
    sql = """select [1.5, 2.5] l, {'a': 1.5, 'b': [interval 1 day]} s, map {1: 2.5} m,
        {'d': date '2026-01-02', 'n': 'nan'::double} d"""
    plain = {
        "l": [1.5, 2.5],
        "s": {"a": 1.5, "b": ["1 day, 0:00:00"]},
        "m": {"1": 2.5},
        "d": {"d": "2026-01-02", "n": "NaN"},
    }
    assert json.loads(query(sql, log, "--json").stdout) == [plain]
    header, row = csv.reader(io.StringIO(query(sql, log, "--csv").stdout))
    assert {name: json.loads(text) for name, text in zip(header, row, strict=True)} == plain


MOMENTS = """select t, [t] as l, {'a': t} as s
    from (select '2026-01-02 03:04:05+01'::timestamptz as t)"""
UTC = "2026-01-02T02:04:05+00:00"


def test_times_with_a_zone_are_those_of_utc(query, log):
    structures = f'["{UTC}"]', f'{{"a":"{UTC}"}}'
    assert query(MOMENTS, log).stdout.splitlines()[1].split() == [UTC, *structures]
    _, row = csv.reader(io.StringIO(query(MOMENTS, log, "--csv").stdout))
    assert row == [UTC, *structures]
    assert json.loads(query(MOMENTS, log, "--json").stdout) == [
        {"t": UTC, "l": [UTC], "s": {"a": UTC}}
    ]


def test_a_row_of_csv_does_not_break_at_a_carriage_return(query, log):
    result = query("select 'a' || chr(13) || 'b' as x, 1 as n", log, "--csv")
    assert result.stdout_bytes == b'x,n\n"a\rb",1\n'


def test_whole_numbers_are_whole_in_tables(query, log):
    sql = """select 1000001::double as a, -123456789012::double as b, 1e300::double as c,
        1234567.5::double as d, 1000001.00::decimal(12, 2) as e, 'nan'::double as f,
        '-inf'::double as g, 0.1234567::double as h"""
    assert query(sql, log).stdout.splitlines()[1].split() == [
        *("1000001", "-123456789012", "1e+300", "1.23457e+06"),
        *("1000001", "NaN", "-Infinity", "0.123457"),
    ]


def test_bytes_are_written_in_hexadecimal(query, log):
    sql = r"select '\xABa'::blob as b, ['c'::blob] as l"
    assert query(sql, log).stdout.splitlines()[1].split() == ["ab61", '["63"]']
    assert query(sql, log, "--csv").stdout == 'b,l\nab61,"[""63""]"\n'
    assert json.loads(query(sql, log, "--json").stdout) == [{"b": "ab61", "l": ["63"]}]


def test_logs_with_many_columns_are_asked_at_once(query, write):
    texts = {f"t{number}": "no number" for number in range(300)}
    numbers = {f"n{number}": number for number in range(300)}
    write("a.jsonl", [{**texts, **numbers}] * 2 + [{**numbers, "t7": "NaN", "deep": {"t8": "9"}}])
    names = [line.split(",")[1] for line in query("--tables", "a.jsonl", "--csv").stdout.split()]
    assert names[-301:] == ["t7", *(f"n{number}" for number in range(300))]


@pytest.mark.parametrize("sql", [";", "/* nothing */", "/* a */ -- b"])
def test_sql_that_asks_nothing_is_told_so(query, log, sql):
    result = query(sql, log)
    assert result.exit_code == 1
    assert result.stderr == f"Error: The SQL asks nothing: {sql}\n"


@pytest.mark.parametrize(
    "sql",
    [
        "begin; select error('first') from records",
        "drop view metrics; select training.loss from records",
        "drop schema runs cascade; select 1 / x",
    ],
)
def test_errors_are_told_whatever_came_before(query, log, sql):
    result = query(sql, log)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)


def test_errors_show_no_control_characters(query, write):
    write("a.jsonl", [{"event": "a", "measurements": {"lo\x1b[31mss": 1.0}, "metadata": {}}])
    result = query('select "a.lo_ss" from metrics', "a.jsonl")
    assert "\x1b" not in result.stderr
    assert "lo\\x1b[31mss" in result.stderr
    assert len(result.stderr.splitlines()) > 2  # the lines of the message stay lines
