"""Text in C++ is that of the `tokenizers` library: ids of 10,000 strings, and what streams say of them.

On a small vocabulary that is trained here, with patterns as models have them, and on one of the family's size, 131,072
ids, where mistral-common is installed (its data only: `pip install --no-deps mistral-common`).
"""

from __future__ import annotations

import json
import random
import runpy
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest

tokenizers = pytest.importorskip("tokenizers")

HERE = Path(__file__).parent
COUNT = 10_000
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<s>", "<|im_start|>", "<|im_start|>x", "[INST]"]

#: Characters that every Unicode since 3.2 knows: what was assigned later is another class to an older library.
KNOWN = [chr(c) for c in range(0x110000) if unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs")]
RANGES = [  # by kind: emoji and their parts, marks, controls, spaces, scripts of both directions, digits of all scripts
    (0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x1F1E6, 0x1F1FF), (0x200B, 0x200F), (0xFE00, 0xFE0F), (0x300, 0x36F),
    (0x0, 0x1F), (0x7F, 0xA0), (0x2000, 0x200A), (0x2028, 0x202F), (0x180E, 0x180E), (0x1680, 0x1680), (0x3000, 0x3000),
    (0x4E00, 0x9FA5), (0x20000, 0x2A6D6), (0x3041, 0x3096), (0xAC00, 0xD7A3), (0x5D0, 0x5EA), (0x621, 0x64A),
    (0x660, 0x669), (0x966, 0x96F), (0x905, 0x939), (0xE01, 0xE3A), (0x391, 0x3A1), (0x410, 0x44F), (0x1C4, 0x1CC),
    (0x1D400, 0x1D454), (0xE000, 0xE0FF), (0xFFFE, 0xFFFF), (0xFF01, 0xFF5E), (0x17F, 0x17F), (0x130, 0x131),
]  # fmt: skip
CODE = [
    "def f(x):\n    return x[0] + 1\n", "for (int i = 0; i < 10; ++i) {\r\n\t", "'s 'S 'RE 're can't WE'LL",
    "http://a.b/c?d=e&f#g", "\n\n\n", "   ", "\t\t", " \n ", "12345 6.02e23 0xFF", "</div>", "/* … */",
    "\u00e9 e\u0301 \u1100\u1161", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "the quick brown fox",
    "Straße İstanbul ǅ", "你好，世界", "مرحبا بالعالم", "שלום", "नमस्ते", "こんにちは", "안녕하세요",
]  # fmt: skip


def strings(seed: int, special: list[str]) -> list[str]:
    """Strings of a few pieces each, of every kind."""
    draw = random.Random(seed)

    def piece() -> str:
        kind = draw.random()
        if kind < 0.15:
            return draw.choice(special)
        if kind < 0.4:
            return draw.choice(CODE)
        if kind < 0.5:
            return "".join(draw.choices(KNOWN, k=draw.randint(1, 6)))
        if kind < 0.6:
            return "".join(
                draw.choices(" \t\n\r\u00a0.,;:!?()[]{}<>|/\\'\"-_=+*&^%$#@~`0123456789abcXYZ", k=draw.randint(1, 12))
            )
        low, high = draw.choice(RANGES)
        return "".join(chr(draw.randint(low, high)) for _ in range(draw.randint(1, 5)))

    return ["".join(piece() for _ in range(draw.randint(0, 8))) for _ in range(COUNT)]


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """A byte-level vocabulary of 3,000 tokens, trained on strings of another seed."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=3000, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(strings(1, ["word"]), trainer)
    special = [tokenizers.AddedToken(text, special=True, normalized=text == "[INST]") for text in SPECIAL]
    tokenizer.add_tokens([*special, tokenizers.AddedToken("<think>", special=False), tokenizers.AddedToken("é à")])
    return dict(json.loads(tokenizer.to_str()))


@pytest.fixture(scope="module")
def large() -> dict[str, Any]:
    module = runpy.run_path(str(HERE / "tekken.py"))
    file = module["vocabulary_file"]()
    if file is None:
        pytest.skip("no vocabulary of 131,072 tokens: pip install --no-deps mistral-common")
    return dict(module["tokenizer_json"](file))


def split_by(pattern: str) -> dict[str, Any]:
    parts = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ]
    return {"type": "Sequence", "pretokenizers": parts}


def lines(built: Path, folder: Path, mode: str, given: list[str]) -> list[str]:
    text = "".join(f"{line}\n" for line in given)
    command = [str(built / "tests" / "elastic_text"), str(folder), mode]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    if b"built with PCRE2" in done.stderr:
        pytest.skip("C++ was built without PCRE2: apt-get install libpcre2-dev")
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split("\n")[:-1]  # a text may hold other line breaks


def check_equal(built: Path, folder: Path, file: dict[str, Any], seed: int) -> None:
    """Ids of strings, and texts of their ids and of random ones, streamed and whole."""
    (folder / "tokenizer.json").write_text(json.dumps(file, ensure_ascii=False), "utf-8")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = strings(seed, [*SPECIAL, "<think>", "é à"])
    wanted = [found.ids for found in tokenizer.encode_batch(texts)]
    got = lines(built, folder, "encode", [json.dumps(text) for text in texts])
    assert len(got) == len(texts)
    for text, ids, line in zip(texts, wanted, got, strict=True):
        assert [int(word) for word in line.split()] == ids, repr(text)
    draw = random.Random(seed)
    size = tokenizer.get_vocab_size()
    sequences = [*wanted, *([draw.randrange(size + 5) for _ in range(draw.randint(0, 20))] for _ in range(COUNT))]
    said = lines(built, folder, "decode", [" ".join(map(str, ids)) for ids in sequences])
    for ids, line in zip(sequences, said, strict=True):
        assert "".join(json.loads(line)) == tokenizer.decode(ids, skip_special_tokens=True), ids


@pytest.mark.timeout(900)
@pytest.mark.parametrize("change", ["gpt2", "gpt4", "tekken", "merges as texts", "whole pieces", "two splits"])
def test_a_small_vocabulary(built: Path, trained: dict[str, Any], tmp_path: Path, change: str) -> None:
    pairs = trained["model"]["merges"]
    changed: dict[str, Any] = {
        "gpt2": {},
        "gpt4": {"pre_tokenizer": split_by(GPT4)},
        "tekken": {"pre_tokenizer": split_by(TEKKEN)},
        "merges as texts": {"model": trained["model"] | {"merges": [" ".join(pair) for pair in pairs]}},
        "whole pieces": {"model": trained["model"] | {"ignore_merges": True, "merges": pairs[::2]}},
        "two splits": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            split_by(r"\p{N}+|\p{Lu}")["pretokenizers"][0],
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ]}},
    }[change]  # fmt: skip
    check_equal(built, tmp_path, trained | changed, seed=2)


@pytest.mark.timeout(900)
def test_a_vocabulary_of_the_family_s_size(built: Path, large: dict[str, Any], tmp_path: Path) -> None:
    assert len(large["model"]["vocab"]) == 131_072
    check_equal(built, tmp_path, large, seed=3)


@pytest.mark.timeout(900)
def test_companions_add_the_tokens_that_they_add_in_python(
    built: Path, trained: dict[str, Any], tmp_path: Path
) -> None:
    from elastic_runtime import Tokenizer

    (tmp_path / "tokenizer.json").write_text(json.dumps(trained), "utf-8")
    decoder = {"3006": {"content": "<new>", "special": True}, "3007": {"content": "fox", "special": False}}
    configs: list[dict[str, Any]] = [
        {"added_tokens_decoder": decoder, "bos_token": "<s>", "model_max_length": float("inf")},
        {"bos_token": {"content": "<b>", "special": True}, "additional_special_tokens": ["<think>", "<a>"]},
        {"image_token": "[INST]", "extra_special_tokens": {"x_token": "<think>"}},
    ]
    texts = ["a<new>fox<s><b> <a>", "the quick brown fox", "<think>é à[INST]"]
    for config in configs:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
        reference = Tokenizer(tmp_path)
        got = lines(built, tmp_path, "encode", [json.dumps(text) for text in texts])
        assert [[int(word) for word in line.split()] for line in got] == [reference.encode(text) for text in texts]
        said = lines(built, tmp_path, "decode", got)
        wanted = [reference.decode([int(word) for word in line.split()]) for line in got]
        assert ["".join(json.loads(line)) for line in said] == wanted
