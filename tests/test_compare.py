"""The program that compares results: its table, and files that are none."""

import json

import pytest
from tiny import call

from tools import compare


def result(path, data):
    row = {"boxes": "detected", "re-ranking": "none", "gallery": "usual", "mAP": 0.5}
    path.write_text(json.dumps({"dataset": "PRW", "data": data, "detection": {"ap": 0.5}, "search": [row]}))
    return path


def test_datasets_are_a_column_where_they_differ(tmp_path, capsys):
    first, same, other = (result(tmp_path / f"{name}.json", data) for name, data in zip("abc", "xxy", strict=True))
    assert call(compare, f"a={first}", f"b={same}") == 0
    assert "data" not in capsys.readouterr().out
    assert call(compare, f"a={first}", f"c={other}") == 0
    assert "data" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "is no file: give OUTPUT_DIR/test/metrics.json"),
        ({"epoch": 2, "mAP": 0.5, "detection_ap": 0.5}, "is of a training run: give OUTPUT_DIR/test/metrics.json"),
        ({"dataset": "PRW"}, "is not a metrics.json of tools.test"),
        ([1], "is not a metrics.json of tools.test"),
    ],
)
def test_what_is_no_result_is_one_sentence(content, message, tmp_path, capsys):
    file = tmp_path / "metrics.json"
    if content is not None:
        file.write_text(json.dumps(content))
    assert call(compare, f"a={file}") == 1
    assert message in capsys.readouterr().err
