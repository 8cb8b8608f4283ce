"""Teacher forcing of a model in training: a plain pass over each conversation, and no trace is left."""

import numpy as np
import pytest
import torch

from memory_rl.dosimeter import forcing
from memory_rl.dosimeter.forcing import Question, reply_log_probs
from memory_rl.policies import tiny_model

PROMPTS, REPLIES, ENDS = [[1, 20, 30, 3], [1, 40, 3], [1, 3]], [[5], [6, 7], [8, 9, 10]], [2, 11]


@pytest.fixture(scope="module")
def model():
    return tiny_model.make_model(0)


def plainly(model, prompt, reply):
    """The log-probability of a reply and either of its ends, one conversation at a time."""
    with torch.no_grad():
        log_probs = model(torch.tensor([[*prompt, *reply]])).logits[0].double().log_softmax(-1)
    said = sum(float(log_probs[len(prompt) - 1 + place, token]) for place, token in enumerate(reply))
    return said + float(np.logaddexp(*(float(log_probs[-1, end]) for end in ENDS)))


@pytest.mark.parametrize("numbers", [2**27, 1, 600])
def test_a_batch_of_any_size_is_a_plain_pass_over_each(model, monkeypatch, numbers):
    monkeypatch.setattr(forcing, "_NUMBERS", numbers)
    asked = [(prompt, reply) for prompt in PROMPTS for reply in REPLIES]
    expected = [plainly(model, *one) for one in asked]
    np.testing.assert_allclose(reply_log_probs(model, asked, ENDS), expected, atol=2e-5)


def test_an_assessment_has_the_secrets_all_answers_and_the_likeliest(model):
    secrets = np.array([2, 0, 1])
    every = np.array([[plainly(model, prompt, reply) for reply in REPLIES] for prompt in PROMPTS])
    question = Question(PROMPTS, REPLIES, ENDS)
    seen = question.assess(model, secrets, every_answer=True)
    np.testing.assert_allclose(seen.of_form, every[[0, 1, 2], secrets][None], atol=2e-5)
    np.testing.assert_allclose(seen.of_valid, np.log(np.exp(every).sum(axis=1))[None], atol=2e-5)
    np.testing.assert_allclose(seen.of_best, every.max(axis=1)[None], atol=2e-5)
    few = question.assess(model, secrets, every_answer=False)
    np.testing.assert_allclose(few.of_form, seen.of_form, atol=2e-5)
    assert np.isnan(few.of_valid).all()
    assert np.isnan(few.of_best).all()


def test_no_trace_is_left(model):
    """A part that the user keeps in eval mode stays there, no gradient is kept, and no number is drawn."""
    model.train()
    model.model.layers[0].eval()
    modes, state = [part.training for part in model.modules()], torch.random.get_rng_state()
    seen = []
    handle = model.register_forward_hook(lambda own, given, out: seen.append((own.training, out.logits)))
    reply_log_probs(model, [(PROMPTS[0], REPLIES[0])], ENDS)
    handle.remove()
    assert [part.training for part in model.modules()] == modes
    assert [(training, logits.requires_grad) for training, logits in seen] == [(False, False)]
    assert torch.equal(torch.random.get_rng_state(), state)
    model.eval()


def test_the_modes_come_back_when_the_pass_fails(model):
    model.train()
    with pytest.raises(IndexError):
        reply_log_probs(model, [([10**6], REPLIES[0])], ENDS)
    assert all(part.training for part in model.modules())
    model.eval()
