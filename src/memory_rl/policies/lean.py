"""A Llama's forward pass by its own modules, which leaves out what nobody asks for.

In the last layer only keys and values are needed of most tokens: queries, what follows attention, and the
head are computed at the places that are kept. transformers computes all layers in full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaForCausalLM

from memory_rl.policies.lora import StackedLoRALinear
from memory_rl.policies.products import quick_linear

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

_SPARE = 2**26  # products of a weight and a token: on one core about as long as what a pass takes at least


def lean(model: PreTrainedModel) -> LeanLlama | None:
    """The lean pass of a model, if there is one that gives the same: of a plain Llama in float32."""
    if type(model) is not LlamaForCausalLM or model.dtype != torch.float32:
        return None
    recomputed = any("forward" in vars(layer) for layer in model.model.layers)  # gradient_checkpointing
    return None if recomputed else LeanLlama(model)


class LeanLlama:
    """The passes of a model whose modules it calls, whatever adapters have been put into them.

    Args:
        model: a Llama.

    Attributes:
        spare_tokens: as many take little longer in a pass than none.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        self._model, self.config = model, model.config
        self.device, self.dtype = model.device, model.dtype
        for layer in model.modules():
            if isinstance(layer, StackedLoRALinear):
                layer.product = quick_linear
        self.spare_tokens = _SPARE // sum(weight.numel() for weight in model.model.layers.parameters())

    def __call__(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        keep: torch.Tensor,
        cache: Cache | None,
    ) -> torch.Tensor:
        """Logits of the kept places, see `packed.ask`."""
        body = self._model.model
        hidden = body.embed_tokens(tokens)
        cos, sin = (part[:, :, None] for part in body.rotary_emb(hidden, positions))
        sin = torch.cat([-sin[..., : sin.shape[-1] // 2], sin[..., sin.shape[-1] // 2 :]], dim=-1)
        rows = _Rows(keep, tokens.shape)
        for layer in body.layers:
            inputs = layer.input_layernorm(hidden)
            keys, values = self._keys(layer.self_attn, inputs, (cos, sin), cache)
            if layer is body.layers[-1]:
                hidden, inputs, cos, sin = map(rows.take, (hidden, inputs, cos, sin))
                mask = rows.take(mask.transpose(1, 2)).transpose(1, 2)
            hidden = hidden + self._attend(layer.self_attn, inputs, (cos, sin), keys, values, mask)
            inputs = layer.post_attention_layernorm(hidden)
            gate = layer.mlp.act_fn(layer.mlp.gate_proj(inputs))
            hidden = hidden + layer.mlp.down_proj(gate * layer.mlp.up_proj(inputs))
        logits: torch.Tensor = self._model.lm_head(body.norm(hidden))
        return logits

    def _keys(
        self, attention: Any, inputs: torch.Tensor, turn: Any, cache: Cache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (B, h, S, d_h), with those of the cache before them."""
        keys = _turned(_heads(attention.k_proj(inputs), attention), turn).transpose(1, 2)
        values = _heads(attention.v_proj(inputs), attention).transpose(1, 2)
        if cache is not None:
            keys, values = cache.update(keys, values, attention.layer_idx)
        groups = attention.num_key_value_groups
        if groups > 1:
            keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
        return keys, values

    def _attend(
        self,
        attention: Any,
        inputs: torch.Tensor,
        turn: Any,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor,
    ) -> torch.Tensor:
        queries = _turned(_heads(attention.q_proj(inputs), attention), turn).transpose(1, 2)
        seen = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=attention.scaling)
        outputs: torch.Tensor = attention.o_proj(seen.transpose(1, 2).flatten(2))
        return outputs


class _Rows:
    """Takes the kept places (T',) or (B, T') of things (B, T, ...), as rows of one long table."""

    def __init__(self, keep: torch.Tensor, shape: torch.Size) -> None:
        self._shape = (shape[0], keep.shape[-1])
        self._rows = (torch.arange(shape[0], device=keep.device)[:, None] * shape[1] + keep).flatten()

    def take(self, some: torch.Tensor) -> torch.Tensor:
        return some.flatten(0, 1).index_select(0, self._rows).view(*self._shape, *some.shape[2:])


def _heads(parts: torch.Tensor, attention: Any) -> torch.Tensor:
    """(B, T, h d_h) to (B, T, h, d_h)."""
    return parts.unflatten(2, (-1, attention.head_dim))


def _turned(parts: torch.Tensor, turn: Any) -> torch.Tensor:
    """Queries or keys (B, T, h, d_h) at their positions: x cos + (x with its halves swapped) (-+ sin)."""
    cos, sin = turn
    return torch.addcmul(parts * cos, parts.roll(parts.shape[-1] // 2, dims=-1), sin)
