"""Figures in files."""

import pytest
from matplotlib.figure import Figure

from telemetry.viewer.charts.pictures import check_picture, save_plot


@pytest.mark.parametrize(
    ("suffix", "start"),
    [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")],
)
def test_a_picture_is_of_the_kind_its_name_says(tmp_path, suffix, start):
    path = tmp_path / "new" / "folders" / f"metrics{suffix}"
    assert save_plot(Figure(), path) == path
    assert path.read_bytes().startswith(start)
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # and nothing else is left


def test_dots_per_inch_are_those_of_the_picture(tmp_path):
    from PIL import Image

    save_plot(Figure(figsize=(4, 2)), tmp_path / "a.png", dpi=50)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (200, 100)


def test_who_reads_the_picture_meanwhile_sees_the_one_that_was_there(tmp_path):
    path = tmp_path / "metrics.png"
    path.write_bytes(b"before")
    with path.open("rb") as reader:
        save_plot(Figure(), path)
        assert reader.read() == b"before"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_leaves_the_one_that_was_there(tmp_path):
    path = tmp_path / "metrics.png"
    path.write_bytes(b"before")
    figure = Figure()
    figure.text(0, 0, "$\\nothing$")
    with pytest.raises(ValueError, match="nothing"):
        save_plot(figure, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["metrics.jpg", "metrics", "metrics.jsonl"])
def test_other_kinds_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"must be a \.png, \.svg or \.pdf file, got '.*metrics"):
        save_plot(Figure(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_path_is_refused():
    with pytest.raises(TypeError, match=r"written to a path, got 7 \(int\)"):
        save_plot(Figure(), 7)


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "outputs").write_text("")
    path = tmp_path / "outputs" / "metrics.png"
    with pytest.raises(NotADirectoryError, match="a folder of its path is a file"):
        save_plot(Figure(), path)


def test_a_folder_that_cannot_be_made_is_told():
    with pytest.raises(
        OSError, match=r"Cannot write the picture '/proc/none/metrics\.png': No such"
    ):
        save_plot(Figure(), "/proc/none/metrics.png")


def test_a_png_that_memory_may_not_have_is_refused(tmp_path):
    figure = Figure((100, 100))
    with pytest.raises(ValueError, match="would have 14,400 million pixels, and may have 100"):
        save_plot(figure, tmp_path / "x.png", dpi=1200)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_picture_is_told(tmp_path):
    (tmp_path / "metrics.png").mkdir()
    with pytest.raises(IsADirectoryError, match=r"metrics\.png': it is a folder\."):
        save_plot(Figure(), tmp_path / "metrics.png")


def test_whether_it_can_be_written_is_known_before_it_is_drawn(tmp_path):
    with pytest.raises(OSError, match=r"Cannot write the picture '/proc/none/metrics\.png'"):
        check_picture("/proc/none/metrics.png")
    assert check_picture(tmp_path / "new" / "a.png").parent.is_dir()


def test_a_link_stays_a_link_and_what_it_leads_to_is_written(tmp_path):
    for name in ("shown", "kept"):
        (tmp_path / name).mkdir()
    link = tmp_path / "shown" / "loss.png"
    link.symlink_to(tmp_path / "kept" / "new" / "of_today.png")
    assert save_plot(Figure(), link) == link
    assert link.is_symlink()
    assert link.read_bytes().startswith(b"\x89PNG")
    assert [each.name for each in (tmp_path / "kept" / "new").iterdir()] == ["of_today.png"]
    assert list((tmp_path / "shown").iterdir()) == [link]


@pytest.mark.parametrize("letter", ["n", "损"])
def test_a_name_can_be_as_long_as_the_file_system_takes(tmp_path, letter):
    name = letter * ((255 - len(".png")) // len(letter.encode())) + ".png"
    save_plot(Figure(), tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == [name]
