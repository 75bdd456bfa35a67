"""``--clipper NAME:KEY=VALUE,...`` as the clipper that is meant, or an error that says why not."""

import click
import pytest

import clipping
from telemetry.cli.replay.clipper_specs import complete_clipper, read_clippers


def refused(*texts):
    with pytest.raises(click.BadParameter) as error:
        read_clippers(texts)
    return error.value.format_message()


@pytest.mark.parametrize(
    ("text", "like"),
    [
        ("autoclip", clipping.AutoClip()),
        (
            "autoclip:mode=percentile, percentile=90,history=window,window_size=64",
            clipping.AutoClip(mode="percentile", percentile=90.0, history="window", window_size=64),
        ),
        ("zscore:zmax=2,eps=1e-6", clipping.ZScoreClip(zmax=2.0, eps=1e-6)),
        (
            "agc:clipping=0.02,scope=per_unit,warmup_steps=5",
            clipping.AGC(clipping=0.02, scope="per_unit", warmup_steps=5),
        ),
        ("zscore:guard_nans=no", clipping.ZScoreClip(guard_nans=False)),
    ],
)
def test_a_clipper_is_the_one_that_the_constructor_makes(text, like):
    ((name, clipper, idle),) = read_clippers([text])
    assert (name, repr(clipper), idle) == (text, repr(like), ())


@pytest.mark.parametrize("option", ["percentile=90", "history=window", "ema_decay=0.9"])
def test_an_option_that_one_mode_has_means_that_mode_and_the_name_says_so(option):
    ((name, clipper, idle),) = read_clippers([f"autoclip:{option},window_size=64"])
    assert (name, idle) == (f"autoclip:mode=percentile,{option},window_size=64", ())
    assert (clipper.mode, clipper.window_size) == ("percentile", 64)
    ((name, clipper, _),) = read_clippers(["autoclip:window_size=64"])
    assert (name, clipper.mode) == ("autoclip:window_size=64", "auto")


def test_a_clipper_that_is_the_same_by_its_mode_is_refused():
    given = "autoclip:percentile=90", "autoclip:mode=percentile,percentile=90"
    assert "'autoclip:mode=percentile,percentile=90' is given twice" in refused(*given)


def test_the_nearest_name_of_a_clipper_is_offered():
    assert refused("AutoClip") == (
        "Invalid value for --clipper: There is no clipper 'AutoClip'. There are: autoclip, zscore, "
        "agc. Did you mean 'autoclip'?"
    )


def test_the_nearest_option_is_offered():
    assert refused("zscore:zmx=2") == (
        "Invalid value for --clipper: zscore has no option 'zmx'. Its options: scope, "
        "warmup_steps, min_history, eps, guard_nans, on_nonfinite, dry_run, zmax, ema_decay. Did "
        "you mean 'zmax'?"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("autoclip:percentile=high", "percentile='high' cannot be used. Allowed: a number."),
        ("autoclip:window_size=1.5", "window_size='1.5' cannot be used. Allowed: an integer."),
        ("agc:mode=auto", "agc has no option 'mode'."),
        ("autoclip:percentile=101", "AutoClip: percentile must be in (0, 100], got 101.0."),
        ("zscore:zmax=nan", "ZScoreClip: zmax must be in (0, inf), got nan."),
        ("autoclip:scope=per_unit", "scope must be one of 'global', 'per_layer', 'per_param'"),
        ("autoclip:on_nonfinite=ignore", "Allowed: 'skip', 'zero', 'propagate', 'raise'."),
        ("autoclip:percentile", "'percentile' in 'autoclip:percentile' must be KEY=VALUE"),
        ("zscore:zmax=1,zmax=2", "'zmax' is given twice for zscore."),
        ("", "There is no clipper ''."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(text, said):
    assert said in refused(text)


def test_the_same_clipper_twice_is_refused():
    assert "'agc' is given twice" in refused("agc", "zscore", "agc")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("autoclip:mode=auto,percentile=95", "percentile changes nothing with mode=auto"),
        ("autoclip:mode=percentile,history=window,ema_decay=0.9", "ema_decay changes nothing with"),
        ("agc:exclude_bias_bn=false", "groups are those that were recorded"),
        ("zscore:dry_run=true", "a replay never touches gradients"),
    ],
)  # fmt: skip
def test_an_option_that_changes_nothing_is_told(text, said):
    ((_, _, (reason,)),) = read_clippers([text])
    assert said in reason


@pytest.mark.parametrize(
    ("begun", "offered"),
    [
        ("", ["autoclip", "zscore", "agc"]),
        ("a", ["autoclip", "agc"]),
        ("zscore:z", ["zscore:zmax="]),
        ("agc:clipping=0.1,e", ["agc:clipping=0.1,exclude_bias_bn=", "agc:clipping=0.1,eps="]),
        ("adam:l", []),
    ],
)
def test_names_and_options_are_completed(begun, offered):
    found = [item.value for item in complete_clipper(None, None, begun)]
    assert sorted(found) == sorted(offered)
