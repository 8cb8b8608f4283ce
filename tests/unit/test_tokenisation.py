"""What the model reads: the same on every day, with each question in it and no end of text behind it, or one
sentence; tokenizers of several kinds, made by hand, that change the case, spaces or characters of a text are
no cause for alarm."""

import string
from datetime import datetime

import numpy as np
import pytest
from pretrained import QWEN, SMOL, make_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

import memory_rl
from memory_rl.errors import ModelError
from memory_rl.policies.tiny_model import make_tokenizer as make_tiny_tokenizer
from memory_rl.policies.tokenisation import read_back, tokenise, tokenise_all
from memory_rl.task import MultiStep, SecretSpace, SingleStep, make_channel

CHARACTERS = string.ascii_letters + string.digits + "?[],()."
NUMBERS = " ".join(map(str, range(16)))
ASK = [("What is it?", "42")]


def encoded(tokenizer, environment):
    every = np.arange(environment.num_forms)
    choices, prompts = environment.choices(every), environment.first_prompts()
    return tokenise_all(tokenizer, environment.conversations(), choices, prompts)


def world(kind: str, num_secrets: int = 1, wording: str = "plain"):
    space = SecretSpace(16)
    if kind == "multi_step":
        return MultiStep.with_noise(space, num_secrets=num_secrets, wording=wording)
    return SingleStep(space, make_channel("binary", 16), num_secrets, wording)


def wrapped(tokenizer: Tokenizer, **settings) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)


def word_pieces() -> PreTrainedTokenizerFast:
    """BERT's: lower case, accents off, [CLS] before a text and [SEP] behind it."""
    pieces = [*string.ascii_lowercase, *string.digits, "secret", "##ret", "integer"]
    vocabulary = ["[UNK]", "[CLS]", "[SEP]", *pieces, *(f"##{one}" for one in pieces[:36]), *"?[],()."]
    tokenizer = Tokenizer(
        models.WordPiece({word: place for place, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.decoder = decoders.WordPiece()
    return wrapped(tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", eos_token="[SEP]")


def sentence_pieces() -> PreTrainedTokenizerFast:
    """A unigram model as SentencePiece writes it: compatibility forms, many spaces as one, a space first."""
    scores = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -2.0)]
    scores += [(word, -3.0) for word in ("▁secret", "integer", "▁4")]
    tokenizer = Tokenizer(models.Unigram([*scores, *((one, -4.0) for one in CHARACTERS)], unk_id=0))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return wrapped(tokenizer, unk_token="<unk>", eos_token="</s>")


def llama_2() -> PreTrainedTokenizerFast:
    """Its BPE: a space before each text, and bytes for what has no token; `add_eos_token` is on."""
    of_bytes = (f"<0x{byte:02X}>" for byte in range(256))
    vocabulary = ["<unk>", "<s>", "</s>", *of_bytes, "▁", *CHARACTERS, "▁s"]
    tokenizer = Tokenizer(
        models.BPE(
            {word: place for place, word in enumerate(vocabulary)}, [("▁", "s")], byte_fallback=True,
            unk_token="<unk>", fuse_unk=True,
        )
    )  # fmt: skip
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return wrapped(tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def whole_words(words: str) -> PreTrainedTokenizerFast:
    """A vocabulary of some words and signs; all others are unknown."""
    vocabulary = ["<unk>", "</s>", *words.split()]
    tokenizer = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return wrapped(tokenizer, unk_token="<unk>", eos_token="</s>")


KINDS = {
    "byte-level BPE": lambda: make_tokenizer(None),
    "WordPiece": word_pieces,
    "Unigram": sentence_pieces,
    "BPE with bytes": llama_2,
    "tiny": make_tiny_tokenizer,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wording", ["terse", "plain"])
def test_tokenizers_that_change_a_text_but_keep_the_question_are_accepted(kind, wording):
    for steps in ("single_step", "multi_step"):
        trie = encoded(KINDS[kind](), world(steps, 4, wording))
        assert len({tuple(prompt) for prompt in trie.prompts}) == 4


# The day


TEMPLATES = {
    "SmolLM3": "{%- set today = strftime_now('%d %B %Y') -%}<|im_start|>system\nToday Date: {{ today }}\n",
    "Granite": "<|im_start|>Today's Date: {{ strftime_now('%B %d, %Y') }}.\n",
    "gpt-oss": "<|im_start|>Current date: {{ strftime_now('%Y-%m-%d') + '\n' }}",
    "Mistral": "{%- set date = strftime_now('%A, %d %b %Y, %H:%M') %}<|im_start|>It is {{ date }}.\n",
    "Llama 3": "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}"
    "{%- endif %}<|im_start|>Today Date: {{ date_string }}\n",
}
READ = {
    "SmolLM3": "26 July 2024",
    "Granite": "July 26, 2024",
    "gpt-oss": "2024-07-26",
    "Mistral": "Friday, 26 Jul 2024, 12:00",
    "Llama 3": "26 Jul 2024",
}


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_template_that_writes_the_date_gives_the_same_tokens_on_every_day(family, monkeypatch):
    tokenizer, written = make_tokenizer(TEMPLATES[family] + SMOL), []
    for day in (datetime(2026, 2, 3, 4), datetime(2027, 12, 31, 23)):

        class Day(datetime):
            @classmethod
            def now(cls, *_, day=day):
                return day

        monkeypatch.setattr(chat_template_utils, "datetime", Day)
        written.append(tokenise(tokenizer, ASK))
    assert written[0] == written[1]
    assert READ[family] in read_back(tokenizer, ASK)


def test_dates_are_in_english_wherever_the_machine_stands():
    """As the locale C has them, which this process is in; line breaks before the text stay."""
    codes = [*"aAbBhpxXcrYmdyHMSjIUWwueCDFTRVGgklPfzZ%", *(f"-{one}" for one in "dmyHIMSj")]
    shown = "\n".join(f"{{{{ strftime_now('[%{code}]') }}}}" for code in codes)
    expected = datetime(2024, 7, 26, 12).strftime("\n".join(f"[%{code}]" for code in codes))
    assert read_back(make_tokenizer(f"\n{shown}{SMOL}"), ASK).startswith(f"\n{expected}")


def test_merges_that_are_left_out_at_random_are_not():
    steady, dropping = make_tokenizer(SMOL), make_tokenizer(SMOL)
    dropping.backend_tokenizer.model.dropout = 0.5
    asked = [("I am thinking of a secret integer", "640")]
    assert [tokenise(dropping, asked) for _ in range(5)] == [tokenise(steady, asked)] * 5


# Templates that fail


FAILING = {
    "TemplateError": "{{ raise_exception('no system message') }}",
    "UndefinedError": "{{ messages[0].parts.text }}",
    "TypeError": "{{ 1 + messages[0]['content'] }}",
    "ZeroDivisionError": "{{ 1 / 0 }}",
    "RecursionError": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "ValueError": "{{ '%d' % messages[0]['role'] }}",
    "OverflowError": "{% for one in range(10 ** 9) %}{% endfor %}",
    "TemplateSyntaxError": "{% if %}",
}


@pytest.mark.parametrize("error", FAILING)
def test_whatever_a_template_raises_is_one_sentence(error):
    tokenizer = make_tokenizer(FAILING[error])
    with pytest.raises(
        ModelError, match=r"^model_name=.* chat template that fails \(.*\): use another mod.*\.$"
    ):
        tokenise(tokenizer, ASK)


def test_several_templates_of_which_none_is_the_default():
    tokenizer = make_tokenizer(SMOL)
    tokenizer.chat_template = {"tool_use": SMOL, "rag": SMOL}
    with pytest.raises(ModelError, match="chat template that fails"):
        tokenise(tokenizer, ASK)


# Questions that are lost


LOSING = {
    "expects parts": SMOL.replace(
        "message['content']", "(message['content'] | map(attribute='text') | select | join)"
    ),
    "keeps the beginning": SMOL.replace("message['content']", "message['content'][:12]"),
    "writes something else": SMOL.replace("message['content']", "'Hello'"),
}


@pytest.mark.parametrize("template", LOSING)
@pytest.mark.parametrize("num_secrets", [1, 4])
def test_a_template_that_loses_the_question(template, num_secrets):
    assert LOSING[template] != SMOL
    with pytest.raises(ModelError, match="chat template that leaves out 'I am thinking of a secret integer"):
        encoded(make_tokenizer(LOSING[template]), world("single_step", num_secrets))


def unreadable() -> dict[str, PreTrainedTokenizerFast]:
    dropping, cutting = make_tiny_tokenizer(), make_tiny_tokenizer()
    dropping.backend_tokenizer.normalizer = normalizers.Replace(Regex("[a-z]"), "")
    cutting.backend_tokenizer.normalizer = normalizers.Replace(Regex("alone.*"), "")
    return {
        "all unknown": whole_words(NUMBERS),
        "some words known": whole_words(f"{NUMBERS} secret integer ."),
        "no small letters": dropping,
        "no end": cutting,
    }


@pytest.mark.parametrize("kind", unreadable())
@pytest.mark.parametrize("num_secrets", [1, 4])
def test_a_tokenizer_that_loses_the_question(kind, num_secrets):
    with pytest.raises(ModelError, match="tokenizer that cannot write 'I am thinking of a secret integer"):
        encoded(unreadable()[kind], world("single_step", num_secrets))


def test_secrets_that_are_asked_for_alike_are_refused():
    """Most of the numbers of the secrets are the only words that it lacks."""
    words = "I am thinking of a secret integer number from to Reply with the alone ."
    tokenizer = whole_words(f"{words} {NUMBERS}")
    with pytest.raises(
        ModelError, match="the prompts of two secrets have the same tokens: use another model"
    ):
        encoded(tokenizer, world("single_step", 12))  # of "00" to "11" it knows the last two
    assert encoded(tokenizer, world("single_step")).num_prompts == 1


def test_turns_that_are_asked_for_alike_are_refused():
    words = "I am thinking of a secret integer from to written with binary digits Digit Reply one at a time"
    tokenizer = whole_words(f"{words.replace(' a ', ' ')} a or alone , . ? 0 1 15 4")
    with pytest.raises(ModelError, match="two turns of the user have the same tokens: use another model"):
        encoded(tokenizer, world("multi_step"))


def test_settings_of_batches_do_not_matter():
    """Truncation and padding that a tokenizer's file asks for."""
    plain, padding = (make_tokenizer(QWEN, grouped=False) for _ in range(2))
    padding.backend_tokenizer.enable_truncation(2)
    padding.backend_tokenizer.enable_padding(length=64)
    asked = [("What?", "640"), ("Digit 2?", "1")]
    assert tokenise(padding, asked) == tokenise(plain, asked)


# What a tokenizer adds


ENDING = {"WordPiece": ("[CLS]", "[SEP]"), "Unigram": (None, "</s>"), "BPE with bytes": ("<s>", "</s>")}


@pytest.mark.parametrize("kind", ENDING)
def test_a_turn_of_the_user_has_no_end_behind_it(kind):
    """Nor has any later turn or reply but its own; what stands before a text stays there."""
    tokenizer, (begin, end) = KINDS[kind](), ENDING[kind]
    (first, reply), (second, last) = tokenise(tokenizer, [("What is it?", "4"), ("And then?", "2")])
    end_id, bare = (
        tokenizer.convert_tokens_to_ids(end),
        tokenizer.encode("What is it?\n", add_special_tokens=False),
    )
    before = [] if begin is None else [tokenizer.convert_tokens_to_ids(begin)]
    assert first == before + bare
    assert second == tokenizer.encode("And then?\n", add_special_tokens=False)
    assert [tokens.count(end_id) for tokens in (first, reply, second, last)] == [0, 1, 0, 1]
    assert reply[-1] == last[-1] == end_id


def test_a_template_that_ends_with_a_special_token_keeps_it():
    tokenizer = make_tiny_tokenizer()
    [(asked, _)] = tokenise(tokenizer, ASK)
    assert asked[-1] == tokenizer.convert_tokens_to_ids("<reply>")


# What the manifest says


def test_a_conversation_is_read_back_from_its_tokens():
    turns = [("What?", "1"), ("Digit 2?", "0")]
    assert read_back(make_tokenizer(SMOL), turns).endswith(
        "user\nWhat?<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"
        "\n<|im_start|>user\nDigit 2?<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"
    )


@pytest.mark.parametrize(
    ("settings", "prompt"),
    [
        ({"N": 4}, "<bos>Secret in [0,4)?<reply>{answer}<eos>"),
        (
            {"N": 4, "env_type": "multi_step"},
            "<bos>Secret in [0,4), bit 1?<reply>{answer}<eos>2?<reply>{answer}<eos>",
        ),
        ({"N": 4, "backend": "tabular"}, None),
    ],
    ids=["single_step", "multi_step", "tabular"],
)  # fmt: skip
def test_the_manifest_holds_the_prompt(settings, prompt, monkeypatch):
    from memory_rl.reporting import pictures

    monkeypatch.setattr(pictures, "draw_run", lambda _: [])
    warmup = {} if settings.get("backend") else {"warmup": False}
    result = memory_rl.train(**settings, **warmup, memorised_at=0.9, num_runs=2, max_episodes=4)
    assert result.manifest["prompt"] == prompt
