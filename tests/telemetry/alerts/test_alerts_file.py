"""Rules from TOML files, and the command that checks them."""

import click
import pytest
from click.testing import CliRunner

from telemetry import alerts
from telemetry.cli import commands

GOOD = """\
# What we want to hear of.
[[rule]]
name = "kl"
metric = "rl.kl_divergence"
above = 0.1
clear = 0.08
cooldown = 60
message = "Lower the learning rate."

[[rule]]
name = "lr"
metric = "training.step.lr"
outside = [0, 1]
clear = [0.1, 0.9]
for_steps = 3
severity = "info"

[[rule]]
name = "silent"
metric = "training.step"
stalled = 600
severity = "error"
[rule.where]
model = "big"
"""
RULES = (
    alerts.Rule(
        "kl",
        "rl.kl_divergence",
        above=0.1,
        clear=0.08,
        cooldown=60,
        message="Lower the learning rate.",
    ),
    alerts.Rule(
        "lr", "training.step.lr", outside=(0, 1), clear=(0.1, 0.9), for_steps=3, severity="info"
    ),
    alerts.Rule("silent", "training.step", stalled=600, severity="error", where={"model": "big"}),
)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def file(text):
        (tmp_path / "rules.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return "rules.toml"

    return file


@pytest.mark.parametrize("text", [GOOD, GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD])
def test_a_file_has_the_rules_that_it_says(file, text):
    assert alerts.load(file(text)) == RULES


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("cooldown", "cooldwn", "7: A rule has no 'cooldwn'. Did you mean 'cooldown'?"),
        ("0.08", "0.2", ("6: Rule 'kl': clear must be at most the limit 0.1, got 0.2. It says "
         "where the alert is over.")),
        ("above = 0.1", 'above = "0.1"', "5: Rule 'kl': above must be a number, got '0.1' (str)."),
        ("[0, 1]", "[\n  1,\n  0,\n]", ("13: Rule 'lr': outside is [1, 0], a range in which "
         "nothing is. Write (low, high).")),
        ("[0, 1]", "[0, nan]", "13: Rule 'lr': outside must be a finite number, got nan."),
        ("60", "-60", "7: Rule 'kl': cooldown must be at least 0, got -60."),
        ('"lr"', '"kl"', "11: The rule of line 3 has the name 'kl' too. Rename one of them."),
        ('name = "lr"', "", "10: The rule has no 'name'. Write name = \"kl\"."),
        ("training.step.lr", "trainig.step.lr", ("12: Rule 'lr': metric 'trainig.step.lr' is "
         "unknown. Nearest: 'training.step.lr'.")),
        ('"error"', '"eror"', ("22: Rule 'silent': severity must be one of 'critical', 'error', "
         "'warning', 'info', got 'eror'. Did you mean 'error'?")),
        ('"big"', '["big"]', ("23: Rule 'silent': where['model'] must be a string, a number, a "
         "boolean or None, got ['big'] (list).")),
        ("stalled = 600", "", ("19: Rule 'silent' has no condition. Give one of: above, below, "
         "outside, drop, spike, nonfinite, stalled.")),
        ('[[rule]]\nname = "silent"', '[[rules]]\nname = "silent"', ("18: The file has 'rules'. "
         "Did you mean 'rule'?")),
    ],
)  # fmt: skip
def test_an_error_names_its_line(file, old, new, error):
    text = GOOD.replace(old, new, 1)
    if new.startswith("[[rules]]"):
        text = text.replace("[rule.where]\n", "").replace('model = "big"\n', "")
    with pytest.raises(ValueError, match=r"^") as raised:
        alerts.load(file(text))
    assert str(raised.value) == f"rules.toml:{error}"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("cooldown = 60", "cooldown = sixty", 7),
        ('"big"', '"big', 24),
        ("above = 0.1", "above = 0.1\nabove = 0.2", 6),
        ('"Lower', '"""Lower', 24),  # which has no end before that of the file
    ],
)
def test_what_is_no_toml_names_its_line(file, old, new, line):
    with pytest.raises(ValueError, match=rf"^rules\.toml:{line}: No valid TOML: .+\.$"):
        alerts.load(file(GOOD.replace(old, new, 1)))


def test_all_errors_are_told_at_once_in_their_order(file):
    text = GOOD.replace("cooldown", "cooldwn").replace("600", "0").replace("for_steps", "patience")
    with pytest.raises(ValueError, match=r"^") as raised:
        alerts.load(file(text))
    assert str(raised.value).splitlines() == [
        "rules.toml:7: A rule has no 'cooldwn'. Did you mean 'cooldown'?",
        (
            "rules.toml:15: A rule has no 'patience'. Allowed: name, metric, above, below, "
            "outside, drop, spike, nonfinite, stalled, for_steps, share, window, clear, cooldown, "
            "severity, where, message."
        ),
        "rules.toml:21: Rule 'silent': stalled must be more than 0 seconds, got 0.",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "1: The file has no rules. Begin each with [[rule]]."),
        ("rule = []", "1: The file has no rules. Begin each with [[rule]]."),
        ("\n[rule]\nname = 'a'", ("2: 'rule' must be an array of tables. Begin each rule with "
         "[[rule]].")),
        ("rule = [1]", "1: 'rule' must be an array of tables. Begin each rule with [[rule]]."),
        (b"# caf\xe9", "1: The file is not UTF-8."),
        (b"\n\n# caf\xe9", "3: The file is not UTF-8."),
        ('rule = [\n  {name = "a", metric = "my.x", above = 1},\n  {name = "a"},\n]',
         ("1: The rule has no 'metric'. Write metric = \"rl.step.kl_divergence\".\n"
         "rules.toml:1: The rule of line 1 has the name 'a' too. Rename one of them.")),
        (('[[rule]]\nname = "a"\nmetric = "my.x"\nmessage = """\n[[rule]]\nabove = 1\n"""\n'
         'below = "x"'), "8: Rule 'a': below must be a number, got 'x' (str)."),
    ],
)  # fmt: skip
def test_a_file_that_has_no_rules_is_refused(file, text, error):
    with pytest.raises(ValueError, match=r"^") as raised:
        alerts.load(file(text))
    assert str(raised.value) == f"rules.toml:{error}"


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        alerts.load(tmp_path / "none.toml")


# the command


@pytest.fixture
def telemetry():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(commands, arguments, prog_name="telemetry")


def test_the_command_prints_a_table(telemetry, file):
    result = telemetry("alerts", file(GOOD))
    assert result.exit_code == 0
    assert click.unstyle(result.output).splitlines() == [
        "rule    severity  metric            condition                         and",
        (
            "kl      critical  rl.kl_divergence  above 0.1                         over at 0.08, "
            "not again within 60 s"
        ),
        "    Lower the learning rate.",
        (
            "lr      info      training.step.lr  outside 0 to 1, 3 times in a row  over within 0.1 "
            "to 0.9"
        ),
        "silent  error     training.step     no event for 600 s                where model = 'big'",
    ]


def test_a_doubt_names_its_line(telemetry, file):
    path = file(GOOD.replace("training.step.lr", "training.step.gradnorm"))
    text = (
        "Rule 'lr': training.step has no measurement 'gradnorm' in the event catalogue. "
        "Nearest: 'grad_norm'."
    )
    with pytest.warns(UserWarning, match="gradnorm") as warned:
        alerts.load(path)
    assert [(one.filename, one.lineno, str(one.message)) for one in warned] == [(path, 12, text)]
    result = telemetry("alerts", path)
    assert result.exit_code == 0
    assert result.stderr == f"Warning: rules.toml:12: {text}\n"


def test_the_command_writes_control_characters_as_escapes(telemetry, file):
    text = GOOD.replace('"lr"', '"l\\u001b[31mr"').replace("rate.", "rate.\\nNow\\u001b[2J.")
    lines = telemetry("alerts", file(text)).stdout.splitlines()
    assert "    Lower the learning rate.\\nNow\\x1b[2J." in lines
    assert any(line.startswith("l\\x1b[31mr  ") for line in lines)


def test_a_file_of_many_rules_is_read_once(file, monkeypatch):
    """Line by line as often as there are statements, and not each time from its beginning."""
    from telemetry.alerts import toml_lines

    read, really = [], toml_lines._read
    monkeypatch.setattr(toml_lines, "_read", lambda text: read.append(len(text)) or really(text))
    rule = '[[rule]]\nname = "kl{}"\nmetric = "my.x"\nabove = 1\n'
    text = "".join(map(rule.format, range(200)))
    assert len(alerts.load(file(text))) == 200
    assert sum(read) <= 2 * len(text)


def test_the_command_says_what_is_wrong_and_fails(telemetry, file):
    result = telemetry("alerts", file(GOOD.replace("cooldown", "cooldwn")))
    assert result.exit_code == 1
    wrong = "rules.toml:7: A rule has no 'cooldwn'. Did you mean 'cooldown'?"
    assert result.output == f"Error: {wrong}\n"


def test_the_command_says_that_there_is_no_such_file(telemetry, file):
    file(GOOD)
    result = telemetry("alerts", "none.toml")
    assert result.exit_code == 1
    assert result.output == "Error: none.toml cannot be read: No such file or directory.\n"


def test_files_are_completed(file):
    from click.shell_completion import ShellComplete

    shell = ShellComplete(commands, {}, "telemetry", "_TELEMETRY_COMPLETE")
    assert [one.value for one in shell.get_completions([], "al")] == ["alerts"]
    assert [one.type for one in shell.get_completions(["alerts"], "")] == ["file"]


@pytest.mark.parametrize(
    ("rule", "condition"),
    [
        ({"drop": 0.5, "clear": 0.3}, "more than 50 % below the median of the last 100"),
        ({"spike": 3, "clear": 1.5}, "above 3 times the median of the last 100"),
        ({"nonfinite": True}, "not finite"),
        ({"below": 1, "share": 0.07}, "below 1, in more than 7 % of the last 100"),
    ],
)
def test_conditions_in_words(rule, condition):
    from telemetry.alerts import words

    assert words.condition(alerts.Rule("r", "my.x", **rule)) == condition


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ({"drop": 0.5, "clear": 0.3}, "over at 30 %"),
        ({"spike": 3, "clear": 1.5}, "over at 1.5 times the level"),
        ({"below": 1, "share": 0.5, "clear": 0.25}, "over at 25 %"),
        ({"above": 1}, ""),
    ],
)
def test_what_else_a_rule_says(rule, more):
    from telemetry.alerts import words

    assert words.more_of(alerts.Rule("r", "my.x", **rule)) == more
