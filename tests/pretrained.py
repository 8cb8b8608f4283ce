"""Small random models of the families that people train, with tokenizers and chat templates that have the
traits of the real ones."""

from __future__ import annotations

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from memory_rl.task import MultiStep, SecretSpace, SingleStep, make_channel

SMOL = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The parts of Qwen3's template that matter here: an empty thought before the last answer, which is left out
# of earlier ones, and the switch for it.
QWEN = (
    "{%- set ns = namespace(last=0) %}{%- for message in messages %}"
    "{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}{%- if message.role == 'assistant' and loop.index0 > ns.last %}"
    "{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + message.content + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
# Llama 3's: the end of a turn is not the end of text, and the date is that of the day unless one is given.
LLAMA = (
    "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{{- '<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Today Date: ' + date_string + '\n\n<|eot_id|>' }}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
FAMILIES = {
    "smollm2": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}, SMOL, "<|im_end|>"),
    "qwen3": (
        Qwen3ForCausalLM,
        Qwen3Config,
        {"tie_word_embeddings": True, "head_dim": 16},
        QWEN,
        "<|im_end|>",
    ),
    "llama3": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}, LLAMA, "<|eot_id|>"),
    "base llama3": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}, None, "<|end_of_text|>"),
}


def make_tokenizer(template: str | None, *, grouped: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose vocabulary has every number of up to three digits as one token, as Llama 3's
    has; or one token a digit."""
    tokenizer = Tokenizer(models.BPE())
    digits = r"\p{N}{1,3}" if grouped else r"\p{N}"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(digits + r"|[^\p{N}]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(
        [str(number) for number in range(1000)] * 3 + ["I am thinking of a secret integer"], trainer
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token="<|end_of_text|>", chat_template=template
    )


SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
"""Of a small model of any family."""


def make_model(kind, settings, more, size):
    torch.manual_seed(0)
    return kind(settings(vocab_size=size, initializer_range=0.2, **SHAPE, **more)).eval()


def make_world(kind: str, N: int):
    space = SecretSpace(N)
    return (
        MultiStep.with_noise(space, wording="plain")
        if kind == "multi_step"
        else SingleStep(space, make_channel("binary", N), wording="plain")
    )
