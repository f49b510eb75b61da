"""Small files that anybody may have written: bounded, or refused in words."""

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits, read_files
from infoxlm_jax.runtime.limits import Limit
from infoxlm_jax.runtime.redact import redacted

JSON = st.recursive(
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats(allow_nan=False, allow_infinity=False)
  | st.text(st.characters(codec="utf-8")),
  lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
  max_leaves=20,
)


@pytest.fixture
def write(tmp_path):
  def function(content: bytes):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    return path

  return function


@given(JSON)
def test_json_comes_back(value):
  for ascii_only in (True, False):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert read_files.parse_json(text.encode(), "a") == value
    assert read_files.parse_json(text, "a") == value


@given(st.binary(max_size=200) | st.text('[]{}":,0e-\\u dtrue', max_size=80))
def test_any_bytes_are_json_or_refused(content):
  try:
    value = read_files.parse_json(content, "a.json")
  except InputError as error:
    assert "a.json" in str(error) and "\n" not in str(error)
  else:
    json.dumps(value)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "a.json is not JSON .*: it is damaged, truncated"),
    (b'{"a": "\xff"}', "a.json: byte 0xff at place 8 is not UTF-8"),
    (b"[" * 100_000, "a.json: more than 64 levels.*INFOXLM_MAX_NESTING"),
    (b"[" * 65 + b"]" * 65, "a.json: more than 64 levels of nesting"),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "a.json: more than 64 levels"),
    (b"9" * 5000, "a.json is not JSON"),
    (b"[1]", "a.json holds a list, no JSON object"),
    (b"{}", "a.json has no field 'b'"),
    (b'{"b": null}', "a.json: the field 'b' is null"),
    (b'{"b": true}', "a.json: the field 'b' is a boolean"),
  ],
)
def test_objects_that_are_refused(write, content, message):
  with pytest.raises(InputError, match=message):
    read_files.read_object(write(content), {"b": int})


def test_depth_is_counted_not_brackets(write):
  assert read_files.read_json(write(b"[" * 64 + b"]" * 64))
  flat = b"[" + b"[],{}," * 1000 + b'"[[["]'
  assert len(read_files.read_json(write(flat))) == 2001


def test_limits_can_be_raised(write, monkeypatch):
  small = Limit("INFOXLM_MAX_TEST", 10, "bytes of a test")
  path = write(b'{"b": 123456}')
  message = "a.json: more than 10 bytes of a test.* set INFOXLM_MAX_TEST "
  with pytest.raises(InputError, match=message):
    read_files.read_json(path, small)
  monkeypatch.setenv("INFOXLM_MAX_TEST", "13")
  assert read_files.read_json(path, small) == {"b": 123456}
  for value in ("-1", "0", "many", "1e3", "9" * 40):
    monkeypatch.setenv("INFOXLM_MAX_TEST", value)
    with pytest.raises(InputError, match="MAX_TEST='.*' is not a whole"):
      read_files.read_json(path, small)


def test_every_limit_has_its_own_variable():
  named = [x for x in vars(limits).values() if isinstance(x, Limit)]
  assert len({x.variable for x in named}) == len(named) > 5
  assert all(x.variable.startswith("INFOXLM_MAX_") for x in named)


def test_only_regular_files_are_opened(tmp_path):
  os.mkfifo(tmp_path / "fifo")  # opening it would wait for a writer
  for path, kind in (
    ("/dev/zero", "a device, FIFO or socket"),
    (tmp_path / "fifo", "a device, FIFO or socket"),
    (tmp_path, "a folder"),
  ):
    with pytest.raises(InputError, match=f"{re.escape(str(path))} is {kind}"):
      read_files.read_bytes(path)
  for name in ("none", "x" * 5000):
    with pytest.raises(InputError, match="cannot read"):
      read_files.read_bytes(tmp_path / name)
  with pytest.raises(InputError, match="is no path"):
    read_files.read_bytes("a\0b")


def test_lines_have_a_limit(write, monkeypatch):
  monkeypatch.setenv("INFOXLM_MAX_LINE_BYTES", "4")
  with read_files.open_regular(write(b"abcd\n\nabcd")) as file:
    assert list(read_files.lines(file, "a")) == [b"abcd\n", b"\n", b"abcd"]
  with read_files.open_regular(write(b"a\nabcde\n")) as file:
    message = "a.txt, line 2: more than 4 bytes in a line"
    with pytest.raises(InputError, match=message):
      list(read_files.lines(file, "a.txt"))


@pytest.mark.parametrize("name", ["a", "a/b.txt", "text/zh-Hans-0.x", "ä.txt"])
def test_names_inside_a_folder(name):
  assert read_files.check_inside(name, "list.json") == name


@pytest.mark.parametrize(
  "name",
  ["", ".", "..", "/a", "a/../b", "../a", "a//b", "a/", "./a", "a\0b", "a\nb"]
  + ["x" * 256, "x" * 5000, "a\\..\\b", "\ud800", None, 3, ["a"]],
)
def test_names_outside_of_a_folder(name):
  with pytest.raises(InputError, match="list.json"):
    read_files.check_inside(name, "list.json")


def test_secrets_are_left_out():
  command = [
    "--gin_file=a.gin",
    "--gin.HF_TOKEN=abc",
    "--gin.TOKENIZER=a.model",
    "--gin.RunOptions.max_tokens=512",
    "--password",
    "abc",
    "--gin.DATA=https://me:abc@host/data?X-Signature=abc&part=2",
    "--gin.NAME=hf_abcabcabcabcabcabcabc",
    "--gin.my_api_key=abc",
  ]
  shown = redacted(command)
  assert "abc" not in " ".join(shown)
  assert shown[:1] + shown[2:4] == command[:1] + command[2:4]
  assert shown[6].startswith("--gin.DATA=https://***@host/data?***")


def test_every_limit_is_documented(root):
  rows = re.findall(
    r"^\| `(INFOXLM_MAX_\w+)` \| ([\d,]+)( [MG]iB)? ",
    (root / "SECURITY.md").read_text(),
    re.MULTILINE,
  )
  units = {"": 1, " MiB": 1 << 20, " GiB": 1 << 30}
  documented = {
    name: int(count.replace(",", "")) * units[unit]
    for name, count, unit in rows
  }
  named = [x for x in vars(limits).values() if isinstance(x, Limit)]
  assert documented == {x.variable: x.default for x in named}
