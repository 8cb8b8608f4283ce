"""YAML gives words, which no version of YAML turns into something else; what is no such YAML is said in one
sentence."""

import pytest

from memory_rl.errors import ConfigError
from memory_rl.yaml_words import MAX_BYTES, bytes_of, words_of


def test_values_are_the_words_that_were_typed():
    text = 'a: 3e-1\nb: 010\nc: 1:04\nd: no\ne: 2026-01-01\nf: .inf\ng: "0.3"\nh: [True, 0x10, 1_000]\n'
    assert words_of(text.encode(), "x") == {
        "a": "3e-1", "b": "010", "c": "1:04", "d": "no", "e": "2026-01-01", "f": ".inf", "g": "0.3",
        "h": ["True", "0x10", "1_000"],
    }  # fmt: skip
    assert words_of(b"{1: ~, yes: null, c: , d: 'null'}", "x") == {
        "1": None,
        "yes": None,
        "c": None,
        "d": "null",
    }
    assert words_of(b"", "x") is None


def test_what_people_have_in_their_files_is_read():
    assert words_of(b"\xef\xbb\xbfa: 1", "x") == {"a": "1"}  # as editors on Windows begin a file
    assert words_of("a: é💥\r\nb: 2\r\n".encode(), "x") == {"a": "é💥", "b": "2"}
    shared = b"base: &base {N: 4, seed: 1}\ngrid:\n- {<<: *base, seed: 2}\n- *base\n"
    assert words_of(shared, "x")["grid"] == [{"N": "4", "seed": "2"}, {"N": "4", "seed": "1"}]
    assert words_of(b"a: >-\n  two\n  lines\n", "x") == {"a": "two lines"}


LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
REFUSED = {
    "a key twice": (b"a: 1\nb: 2\na: 3", "line 3: a is there twice"),
    "a key twice, deep inside": (b"- {x: {N: 4, N: 8}}", "line 1: N is there twice"),
    "a key that is a list": (b"? [1]\n: 2", "line 1: a key that is no word"),
    "an object of Python": (b"a: !!python/object:os.system {}", "line 1: the tag .*os.system"),
    "a type": (b"\na: !!int 3", "line 2: the tag"),
    "a tab": (b"a:\n\t- 1", "line 2: found character"),
    "an open bracket": (b"a: [1", "line 1: expected"),
    "another version": (b"%YAML 3.0\n---\na: 1", "incompatible YAML document"),
    "two documents": (b"a: 1\n---\nb: 2", "line 2: but found another document"),
    "an alias of nothing": (b"a: *b", "line 1: found undefined alias"),
    "a NUL": (b"a: x\0y", "not valid YAML"),
    "a NUL as an escape": (b'a: "x\\0y"', "line 1: a control character"),
    "half a character": (b'a: "\\ud800"', "line 1: a control character"),
    "no character": (b'a: "\\U00110000"', "not valid YAML"),
    "Latin 1": (b"a: \xe9", "not a text in UTF-8"),
    "UTF-16": ("a: 1".encode("utf-16"), "not a text in UTF-8"),
    "a thousand brackets": (b"[" * 1000, "nested too deeply"),
    "brackets to the end": (b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    "a thousand dashes": (b"- " * 1000, "nested too deeply"),
    "a list that holds itself": (b"&a [*a]", "nested too deeply"),
    "a billion laughs": (LAUGHS.encode(), "more than 131072 values"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_yaml_of_words_is_refused_in_one_sentence(content, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        words_of(content, "grid=mine.yaml")
    sentence = str(caught.value)
    assert sentence.startswith("grid=mine.yaml is ")
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(
        ConfigError, match=r"^grid=large is larger than 1 MiB: give the path of a YAML file\.$"
    ):
        bytes_of(path, "grid=large")
