"""A tokenizer with a token a byte and the special tokens of Llama 3, for what needs no vocabulary."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def make_tokenizer():
    tokenizer = Tokenizer(
        models.BPE(
            {byte: index for index, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[3],
        clean_up_tokenization_spaces=False,
    )
