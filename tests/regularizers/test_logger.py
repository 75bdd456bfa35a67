import logging
import math

import pytest
import torch

import telemetry
from regularizers import (
    CustomLossOutput,
    RegularizerError,
    RegularizerSpec,
    attach_logger,
    custom_loss,
    penalties,
)


@pytest.fixture
def log(caplog):
    """The levels and lines that were logged at DEBUG or above."""
    caplog.set_level(logging.DEBUG, logger="regularizers")
    return caplog


def lines(log):
    return [(record.levelname, record.getMessage()) for record in log.records]


def stop(name, measurements, metadata):
    telemetry.execute((*name, "stop"), measurements, metadata)


LOSS = ("custom_loss",)
ONE = ("regularizer", "compute")


def test_a_loss_is_a_line(log):
    with attach_logger():
        stop(
            LOSS,
            {"loss_total": 2.847, "regularizer_total": 0.224, "duration": 1_500_000},
            {"model_id": None, "regularizer_count": 1},
        )
    assert lines(log) == [("INFO", "Custom loss: total=2.847 regs=1 duration=1.5ms")]
    assert log.records[0].name == "regularizers"


def test_the_gradient_norm_and_the_model_are_in_the_line_where_they_are_known(log):
    with attach_logger():
        stop(
            LOSS,
            {"loss_total": 2.847, "total_grad_norm": 5.67, "duration": 12_345_678},
            {"model_id": "m", "regularizer_count": 1},
        )
    assert lines(log) == [
        ("INFO", "Custom loss: total=2.847 regs=1 duration=12.346ms grad_norm=5.67 model_id=m")
    ]


def test_a_regularizer_is_a_line_for_debugging(log):
    with attach_logger():
        stop(
            ONE,
            {"value": 22.4, "contribution": 0.224, "grad_norm": 7.48, "duration": 250_000},
            {"regularizer_name": "sparsity", "weight": 0.01, "async": False},
        )
    assert lines(log) == [
        (
            "DEBUG",
            "Regularizer sparsity: value=22.4 contribution=0.224 duration=0.25ms grad_norm=7.48",
        )
    ]


def test_events_of_compiled_code_have_no_duration(log):
    with attach_logger():
        stop(ONE, {"value": 3.0, "contribution": 0.3}, {"regularizer_name": "a"})
        stop(LOSS, {"loss_total": 5.3}, {"model_id": None, "regularizer_count": 1})
    assert [message for _, message in lines(log)] == [
        "Regularizer a: value=3 contribution=0.3",
        "Custom loss: total=5.3 regs=1",
    ]


def test_what_is_not_finite_can_be_read(log):
    with attach_logger():
        stop(ONE, {"value": math.inf, "contribution": -math.inf}, {"regularizer_name": "a"})
        stop(LOSS, {"loss_total": math.nan}, {"regularizer_count": 1})
    assert [message for _, message in lines(log)] == [
        "Regularizer a: value=inf contribution=-inf",
        "Custom loss: total=nan regs=1",
    ]


def test_a_real_loss_is_logged_after_its_regularizers(log):
    logprobs = torch.tensor([3.0, -4.0], requires_grad=True)
    specs = [RegularizerSpec(penalties.l1, 0.5, "l1"), RegularizerSpec(penalties.l2, 0.1, "l2")]
    with attach_logger():
        custom_loss(
            [1, 2], logprobs, lambda data, x: x.sum(), regularizers=specs, track_grad_norms=True
        )
    # By hand: -1 + 0.5 * 7 + 0.1 * 25 = 5; the gradients are (1, 1), (1, -1) and (6, -8),
    # and 1 + 0.5 + 0.6 = 2.1 with 1 - 0.5 - 0.8 = -0.3 has the norm sqrt(4.5).
    found = log.text
    assert len(log.records) == 3
    assert log.records[0].getMessage().startswith("Regularizer l1: value=7 contribution=3.5 dur")
    assert log.records[0].getMessage().endswith("ms grad_norm=1.4142")
    assert log.records[1].getMessage().endswith("ms grad_norm=10")
    assert log.records[2].getMessage().startswith("Custom loss: total=5 regs=2 duration=")
    assert log.records[2].getMessage().endswith("ms grad_norm=2.1213"), found


def test_a_failure_is_an_error_with_its_reason(log):
    def fail(data, logprobs):
        raise KeyError("mask")

    specs = [RegularizerSpec(fail, 1.0, "masked")]
    with attach_logger(level="debug"), pytest.raises(RegularizerError):
        custom_loss([], [], lambda data, logprobs: 1.0, regularizers=specs, model_id="m")
    (one, whole) = log.records
    assert [one.levelname, whole.levelname] == ["ERROR", "ERROR"]
    assert one.getMessage().startswith("Regularizer masked failed: reason=KeyError('mask') durat")
    assert whole.getMessage().startswith(
        "Custom loss failed: reason=RegularizerError({'masked': KeyError('mask')}) duration="
    )
    assert whole.getMessage().endswith("ms model_id=m")


@pytest.mark.parametrize(
    ("level", "number"),
    [("info", 20), ("INFO", 20), ("Warning", 30), (logging.DEBUG, 10), (25, 25)],
)
def test_the_level_is_a_number_or_a_name(log, level, number):
    with attach_logger(level=level):
        stop(LOSS, {"loss_total": 1.0}, {"regularizer_count": 0})
    assert [record.levelno for record in log.records] == [number]


def test_a_level_that_users_have_added_has_a_name_too(log):
    logging.addLevelName(25, "PROGRESS")
    try:
        with attach_logger(level="progress"):
            stop(LOSS, {"loss_total": 1.0}, {"regularizer_count": 0})
    finally:
        logging._levelToName.pop(25)
        logging._nameToLevel.pop("PROGRESS")
    assert [record.levelno for record in log.records] == [25]


def test_it_logs_to_the_logger_that_it_is_given(log):
    with attach_logger(logger=logging.getLogger("regularizers.mine")):
        stop(LOSS, {"loss_total": 1.0}, {"regularizer_count": 0})
    assert [record.name for record in log.records] == ["regularizers.mine"]


class Counted:
    """A scalar that counts how often it was read."""

    def __init__(self):
        self.reads = 0

    def tolist(self):
        self.reads += 1
        return 2.5


@pytest.mark.parametrize(("level", "reads"), [("WARNING", 0), ("INFO", 1), ("DEBUG", 2)])
def test_only_lines_whose_level_is_enabled_read_their_numbers(log, level, reads):
    logging.getLogger("regularizers").setLevel(level)
    number = Counted()
    with attach_logger():
        stop(ONE, {"value": number}, {"regularizer_name": "a"})
        stop(LOSS, {"loss_total": number}, {"regularizer_count": 0})
    assert (number.reads, len(log.records)) == (reads, reads)


def test_a_line_that_is_written_reads_tensors(log):
    with attach_logger():
        stop(LOSS, {"loss_total": torch.tensor(0.1)}, {"regularizer_count": 2})
    assert lines(log) == [("INFO", "Custom loss: total=0.1 regs=2")]


def test_what_cannot_be_read_is_shown_as_it_is(log):
    with attach_logger() as attachment:
        stop(LOSS, {"loss_total": torch.tensor(0.1, device="meta")}, {"regularizer_count": 2})
        assert attachment.active
    assert lines(log) == [("INFO", "Custom loss: total=tensor(..., device='meta', size=()) regs=2")]


def test_a_line_stays_one_line(log):
    with attach_logger():
        stop(LOSS, {"loss_total": 1.0}, {"regularizer_count": 0, "model_id": "a\nERROR b\x1b[2J"})
    assert lines(log) == [("INFO", r"Custom loss: total=1 regs=0 model_id='a\nERROR b\x1b[2J'")]


def test_a_percent_sign_is_no_format(log):
    with attach_logger():
        stop(ONE, {"value": 1.0}, {"regularizer_name": "50%s"})
    assert lines(log) == [("DEBUG", "Regularizer 50%s: value=1")]


def test_it_is_detached_by_its_id():
    attach_logger()
    assert {info.id for info in telemetry.list_handlers()} == {"regularizers-logger"}
    telemetry.detach("regularizers-logger")
    assert telemetry.list_handlers() == []


def test_an_id_that_is_taken_is_refused():
    with attach_logger(id="mine") as attachment:
        assert attachment.id == "mine"
        with pytest.raises(telemetry.HandlerExistsError, match="mine"):
            attach_logger(id="mine")
        with attach_logger(id="other"):
            pass


@pytest.mark.parametrize("level", ["loud", "", "20"])
def test_a_level_of_no_name_is_refused(level):
    with pytest.raises(ValueError, match="attach_logger") as caught:
        attach_logger(level=level)
    # A library that another test has imported may have added names of its own, at the end.
    added = "".join(f", {name.lower()}" for name in list(logging.getLevelNamesMapping())[8:])
    assert str(caught.value) == (
        f"attach_logger got level={level!r}. It takes a number above 0, or one of "
        f"critical, fatal, error, warn, warning, info, debug{added}."
    )
    assert telemetry.list_handlers() == []


@pytest.mark.parametrize("level", [0, -10, logging.NOTSET])
def test_a_level_at_which_nothing_is_logged_is_refused(level):
    with pytest.raises(ValueError, match="attach_logger") as caught:
        attach_logger(level=level)
    assert str(caught.value) == (
        f"attach_logger got level={level}, at which nothing is ever logged. "
        "It takes a number above 0, such as logging.INFO."
    )


@pytest.mark.parametrize("level", [True, 2.5, None])
def test_a_level_that_is_no_number_is_refused(level):
    with pytest.raises(TypeError) as caught:
        attach_logger(level=level)
    assert str(caught.value) == (
        f"attach_logger got level={level!r} ({type(level).__name__}). "
        "It takes a number, such as logging.INFO, or a name, such as 'info'."
    )


def test_a_logger_that_is_none_is_refused():
    with pytest.raises(TypeError) as caught:
        attach_logger(logger="training")
    assert str(caught.value) == (
        "attach_logger got logger='training' (str). "
        "It takes a logger, such as logging.getLogger('training'), or None."
    )


def test_an_output_read_back_is_not_logged_again(log):
    from regularizers import emit

    output = custom_loss([], [], lambda data, logprobs: 1.0)
    with attach_logger():
        emit(CustomLossOutput.from_dict(output.to_dict()))
    assert lines(log) == []
