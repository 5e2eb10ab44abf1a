"""Lines of JSON: a half-written end is left out, anything else that is not a record is named."""

import pytest

from dpa2calc.errors import DataError
from dpa2calc.files.json_lines import read_json_lines, write_json_lines


def number(record):
    return int(record["n"])


def test_records_come_back_without_a_half_written_end(tmp_path):
    path = tmp_path / "log.jsonl"
    write_json_lines(path, ({"n": n} for n in range(3)))
    assert read_json_lines(path, number, "count", "start again") == [0, 1, 2]
    whole = path.read_text()
    for cut in range(len(whole) - 2, len(whole) - 9, -1):
        path.write_text(whole[:cut])
        assert read_json_lines(path, number, "count", "start again") == [0, 1]


@pytest.mark.parametrize("line", ["5", "[]", "{}", '{"n": "a"}', '{"n": 1', "{" * 100_000])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"n": 0}}\n{line}\n{{"n": 2}}\n')
    with pytest.raises(DataError, match=r"log\.jsonl, line 2 is not a count: .*; remove this line, or start"):
        read_json_lines(path, number, "count", "start again")


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"log\.jsonl cannot be read"):
        read_json_lines(tmp_path / "log.jsonl", number, "count", "start again")
