"""The files of data sets: encodings, CSV, and arrays inside objects."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from service.domain.errors import Refused, TooLong
from service.evaluation.datasets import LoadedDataset, csv_rows, files, load

ROWS = [
    {"prompt": "Der Fluss in Köln heißt", "target": "Rhein"},
    {"prompt": "伦敦在哪个国家？", "target": "英国"},
    {"prompt": "The capital of Chad is", "target": "N'Djamena"},
]
GBK_ROWS = [ROWS[1], ROWS[2]]
Form = Callable[[list[dict[str, str]]], str]


def write(folder: Path, content: bytes | str, name: str = "set.json") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_array(rows: list[dict[str, str]]) -> str:
    return json.dumps(rows, ensure_ascii=False, indent=1)


def as_lines(rows: list[dict[str, str]]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def as_csv(rows: list[dict[str, str]]) -> str:
    return "\r\n".join(["prompt,target", *(f'"{row["prompt"]}","{row["target"]}"' for row in rows)])


def pairs(loaded: LoadedDataset) -> list[tuple[str, str]]:
    return [(record.prompt, record.target) for record in loaded.records]


def expected(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(row["prompt"], row["target"]) for row in rows]


def faults(loaded: LoadedDataset) -> list[tuple[int, str]]:
    return [(bad.line, bad.reason) for bad in loaded.bad]


@pytest.mark.parametrize(("form", "name"), [(as_array, "a.json"), (as_lines, "a.jsonl"), (as_csv, "a.csv")])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
    ],
)
def test_utf_8_and_files_with_a_byte_order_mark_need_no_option(
    mark: bytes, encoding: str, form: Form, name: str, tmp_path: Path
) -> None:
    path = write(tmp_path, mark + form(ROWS).encode(encoding), name)

    assert pairs(load(path)) == expected(ROWS)


@pytest.mark.parametrize(("form", "name"), [(as_array, "a.json"), (as_lines, "a.jsonl"), (as_csv, "a.csv")])
@pytest.mark.parametrize("encoding", ["gbk", "GB18030", "utf-16-le", "utf-16"])
def test_another_encoding_is_named(encoding: str, form: Form, name: str, tmp_path: Path) -> None:
    path = write(tmp_path, form(GBK_ROWS).encode(encoding), name)

    assert pairs(load(path, encoding=encoding)) == expected(GBK_ROWS)


@pytest.mark.parametrize(("form", "name"), [(as_array, "a.json"), (as_lines, "a.jsonl"), (as_csv, "a.csv")])
def test_a_file_in_another_encoding_says_which_option_names_it(form: Form, name: str, tmp_path: Path) -> None:
    path = write(tmp_path, form([ROWS[1]]).encode("gbk"), name)

    with pytest.raises(Refused, match=r"^the data set is not UTF-8: convert it, or name its encoding, .* with --encoding$"):
        load(path)


def test_rows_that_are_utf_8_are_read_beside_rows_that_are_not(tmp_path: Path) -> None:
    latin = '"Köln liegt am","Rhein"'.encode("latin-1")
    path = write(tmp_path, as_csv([ROWS[2]]).encode() + b"\n" + latin + b"\n", "a.csv")

    loaded = load(path)

    assert (pairs(loaded), faults(loaded)) == (expected([ROWS[2]]), [(3, "it is not UTF-8")])


@pytest.mark.parametrize("encoding", ["no-such-encoding", "rot13", "zip", "base64", "undefined", "", "a\x00b"])
def test_an_encoding_that_is_none_is_refused(encoding: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the encoding is not one that Python knows"):
        load(write(tmp_path, as_array(ROWS)), encoding=encoding)


@pytest.mark.parametrize(
    ("content", "encoding"), [(as_array(GBK_ROWS).encode(), "utf-16-le"), (b"[\xff\xff]", "gbk"), (b"\xff\xfe[\x00{", None)]
)
def test_a_file_that_is_not_in_its_encoding_is_refused(content: bytes, encoding: str | None, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        load(write(tmp_path, content), encoding=encoding)

    assert refused.value.field in ("encoding", "format", "path")


def test_a_converted_file_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, as_array(ROWS).encode("utf-16"))
    monkeypatch.setattr(files, "MOST_BYTES", path.stat().st_size)
    text = "伦" * path.stat().st_size  # three bytes each in UTF-8, two in UTF-16
    path.write_bytes(text[: path.stat().st_size // 2 - 1].encode("utf-16"))

    with pytest.raises(TooLong):
        load(path)


def test_cells_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    text = 'prompt,target\n"He said ""no"", and",left\n\n"two\nlines",right\nlast,one\n'

    loaded = load(write(tmp_path, text, "a.CSV"))

    assert pairs(loaded) == [('He said "no", and', "left"), ("two\nlines", "right"), ("last", "one")]
    assert loaded.bad == ()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_cells_are_separated_as_in_the_header(separator: str, tmp_path: Path) -> None:
    others = ",;\t".replace(separator, "")
    text = f'prompt{separator}"target"\n"a{others}"{separator}b{others}b\n'

    assert pairs(load(write(tmp_path, text, "a.tsv"))) == [(f"a{others}", f"b{others}b")]


def test_csv_of_any_name_is_read_where_the_format_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, as_csv(ROWS), "export.txt")

    assert pairs(load(path, format="csv")) == expected(ROWS)
    with pytest.raises(Refused, match="--format csv"):
        load(path)
    with pytest.raises(Refused, match="--format csv"):
        load(write(tmp_path, as_csv(ROWS), "a.csv"), format="json")
    with pytest.raises(Refused, match="the format must be one of auto, json, csv"):
        load(path, format="xml")


def test_a_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, ",prompt,target\n0,a,b\n1,c,d\n", "a.csv"))

    assert (pairs(loaded), loaded.notes) == ([("a", "b"), ("c", "d")], {})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('"a"b,c', csv_rows.NOT_CSV),
        (f"{'x' * 131_073},c", csv_rows.NOT_CSV),
        (f"{'x,' * (2 << 20)}{'x,' * (2 << 20)}", "it has more than 4 MiB"),
        ("a,b,c", "it has more or fewer cells than the header"),
        ("a", "it has more or fewer cells than the header"),
        ("a,b\x00", "target holds a NUL character or half a character"),
        ("a,", "target is missing or empty"),
    ],
    ids=["quote", "long cell", "long row", "more", "fewer", "nul", "empty"],
)
def test_a_bad_row_of_csv_is_reported_by_its_line_and_the_next_is_read(row: str, reason: str, tmp_path: Path) -> None:
    loaded = load(write(tmp_path, f"prompt,target\na,b\n{row}\nc,d\n", "a.csv"))

    assert (pairs(loaded), faults(loaded)) == ([("a", "b"), ("c", "d")], [(3, reason)])


def test_a_quote_that_is_not_closed_is_a_bad_row(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, 'prompt,target\na,b\n"c,d\ne,f\n', "a.csv"))

    assert (pairs(loaded), faults(loaded)) == ([("a", "b")], [(3, csv_rows.NOT_CSV)])


@pytest.mark.parametrize(
    ("header", "message"), [("prompt,target,prompt", "names a column twice"), ('prompt,"target', "not one line of column names")]
)
def test_a_header_that_does_not_name_the_columns_is_refused(header: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=message):
        load(write(tmp_path, f"{header}\na,b,c\n", "a.csv"))


@pytest.mark.parametrize("text", ["", "prompt,target\n", "\n\n"])
def test_a_csv_file_without_a_row_is_empty(text: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the data set is empty"):
        load(write(tmp_path, text, "a.csv"))


@pytest.mark.parametrize("name", ["data", "rows", "records", "examples", "instances", "edits"])
def test_an_array_inside_an_object_holds_the_rows(name: str, tmp_path: Path) -> None:
    about = {"version": "1", "notes": [{"data": "x"}]}
    for indent in (None, 1):
        text = json.dumps({**about, name: ROWS, "licence": "MIT"}, ensure_ascii=False, indent=indent)

        loaded = load(write(tmp_path, text))

        assert (pairs(loaded), loaded.bad) == (expected(ROWS), ())


def test_a_cut_array_inside_an_object_keeps_its_complete_rows(tmp_path: Path) -> None:
    row = json.dumps(ROWS[0])
    for tail in ("", ",", ', {"prompt": "cut'):
        loaded = load(write(tmp_path, f'{{"data": [{row}{tail}'))

        assert (pairs(loaded), [line for line, _ in faults(loaded)]) == (expected(ROWS[:1]), [1])


@pytest.mark.parametrize(
    "row", [{"data": "x"}, {"data": ["x"]}, {"meta": {"data": [{"a": 1}]}}, {"note": '"data": [{'}, {"x": "data"}]
)
def test_a_row_with_a_field_like_a_wrapper_is_a_row(row: dict[str, object], tmp_path: Path) -> None:
    text = "\n".join(json.dumps(row | given) for given in ROWS)

    assert pairs(load(write(tmp_path, text))) == expected(ROWS)


def test_an_empty_array_inside_an_object_is_an_empty_data_set(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the data set is empty"):
        load(write(tmp_path, '{"data": []}'))
