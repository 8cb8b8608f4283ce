"""The built-in base model: a Llama of under 1M parameters with one token a character.

It is a plain Hugging Face model and tokenizer, so that everything that holds for it holds for a large one. It
knows nothing until it is warmed up (warmup.py). What must not change lightly: any change here makes every
cached base model stale and moves the measured numbers.
"""

from __future__ import annotations

import string

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from memory_rl.config import TINY

NAME = TINY

_SPECIAL = ["<pad>", "<bos>", "<eos>", "<reply>", "<unk>"]
_CHARACTERS = list(string.digits + string.ascii_letters + " ?[],().:-+\n")
_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{% if loop.first %}<bos>{% endif %}"
    "{{ message['content'] }}<reply>"
    "{% else %}{{ message['content'] }}<eos>{% endif %}{% endfor %}"
)
_ARCHITECTURE = {
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,  # a tied head cannot be memorised into through adapters on the inner layers
}
# At the usual 0.02 the hidden states at the k turns of multi_step are all but one vector; what one bit learns
# then moves all bits, and the policy collapses onto the majority bit of S. So the random features are made to
# differ (and warmup.py keeps them apart): docs/findings.md.
_BODY_STD = 0.2
_HEAD_STD = 0.15  # at the usual 0.02 the adapters hardly move the logits


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, with a chat template of one token a turn."""
    vocabulary = {token: index for index, token in enumerate(_SPECIAL + _CHARACTERS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(_SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def make_model(seed: int, body_std: float = _BODY_STD, head_std: float = _HEAD_STD) -> LlamaForCausalLM:
    """The untrained model; the same seed gives the same weights.

    Args:
        seed: of the weights.
        body_std: standard deviation of all weights but the head's. Other values than the defaults are for
            pretraining (text_model.py), and for studies of what they do.
        head_std: the same of the head's.
    """
    size = len(_SPECIAL) + len(_CHARACTERS)
    config = LlamaConfig(
        vocab_size=size,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=body_std,
        **_ARCHITECTURE,
    )
    with torch.device("meta"):  # where nothing is drawn
        model = LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    model.model.rotary_emb = LlamaRotaryEmbedding(config)
    _fill(model, body_std, head_std, torch.Generator().manual_seed(seed))
    return model


@torch.no_grad()
def _fill(model: LlamaForCausalLM, body_std: float, head_std: float, random: torch.Generator) -> None:
    """Draws what making the model elsewhere than on "meta" would draw, from a generator of its own.

    First the body, then the head: PyTorch draws what each matrix begins with, and transformers draws anew.
    """
    for part in (model.model, model.lm_head):
        layers = [layer for layer in part.modules() if isinstance(layer, nn.Embedding | nn.Linear)]
        for layer in layers:
            kind = layer.weight.normal_ if isinstance(layer, nn.Embedding) else layer.weight.uniform_
            kind(generator=random)
        for layer in layers:
            layer.weight.normal_(std=body_std, generator=random)
    model.lm_head.weight.normal_(std=head_std, generator=random)
    model.model.embed_tokens.weight[model.config.pad_token_id] = 0.0
    for layer in model.modules():
        if isinstance(layer, LlamaRMSNorm):
            layer.weight.fill_(1.0)
