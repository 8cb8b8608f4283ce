"""Losses and their gradients against values worked out by hand."""

import math

import torch

from memory_rl.learning.learners import PPO, Reinforce


def test_policy_gradient_sums_over_tokens_and_averages_over_episodes():
    log_probs = torch.tensor([[[-1.0, -2.0], [-3.0, 0.0]]], requires_grad=True)
    advantages = torch.tensor([[[0.5, 0.5], [-1.0, 0.0]]])
    loss = Reinforce().loss(log_probs, log_probs.detach(), advantages)
    loss.backward()
    assert loss.item() == -(0.5 * -1 + 0.5 * -2 + -1 * -3) / 2
    assert torch.equal(log_probs.grad, -advantages / 2)


def test_one_runs_loss_does_not_scale_anothers():
    log_probs = torch.randn(3, 4, 2, requires_grad=True)
    advantages = torch.randn(3, 4, 2)
    Reinforce().loss(log_probs, log_probs.detach(), advantages).backward()
    alone = log_probs.detach()[:1].requires_grad_()
    Reinforce().loss(alone, alone.detach(), advantages[:1]).backward()
    assert torch.equal(log_probs.grad[:1], alone.grad)


def test_the_clipped_ratio_is_the_policy_gradient_at_first():
    log_probs = torch.randn(2, 3, 4, requires_grad=True)
    advantages = torch.randn(2, 3, 4)
    PPO().loss(log_probs, log_probs.detach(), advantages).backward()
    assert torch.allclose(log_probs.grad, -advantages / 3)


def test_the_ratio_is_clipped_only_where_it_went_too_far():
    before = torch.zeros(1, 1, 4)
    log_probs = torch.tensor(
        [[[math.log(1.5), math.log(1.5), math.log(0.5), math.log(0.5)]]], requires_grad=True
    )
    advantages = torch.tensor([[[1.0, -1.0, 1.0, -1.0]]])
    loss = PPO(clip=0.2).loss(log_probs, before, advantages)
    loss.backward()
    assert math.isclose(loss.item(), -(1.2 - 1.5 + 0.5 - 0.8), rel_tol=1e-6)
    assert torch.allclose(log_probs.grad, torch.tensor([[[0.0, 1.5, -0.5, 0.0]]]))
