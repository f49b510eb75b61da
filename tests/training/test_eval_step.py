"""Held-out losses tell what the model can do."""

import dataclasses

import jax
import objective_cases
import pytest
from objective_cases import CASES

from infoxlm_jax.training import eval_step


def test_held_out_losses_are_without_dropout():
  program = objective_cases.program(CASES["mlm"])
  dropping = dataclasses.replace(
    program.model, dropout=0.5, attention_dropout=0.5
  )
  state, batch = program.random_state(0), objective_cases.batch(CASES["mlm"], 0)
  losses = []
  for model in (program.model, dropping):
    recipe = dataclasses.replace(program.recipe, model=model)
    step = eval_step.make_eval_step(recipe, program.state, program.mesh)
    total, count = jax.device_get(step(state, batch, 0))["mlm/loss"]
    losses.append(total / count)
  assert losses[0] == pytest.approx(losses[1], rel=1e-6)
