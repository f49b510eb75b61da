"""Values are checked against their parameters before anything runs."""

import gin.config
import pytest

from infoxlm_jax import gin_utils
from infoxlm_jax.errors import InputError

CONTINUE = [
  "--gin.INIT_FROM=x",
  "--gin.MONO=m",
  "--gin.PAIRS=p",
  "--gin.MODEL_DIR=d",
]


@pytest.fixture(autouse=True)
def _forget():
  yield
  gin.config.clear_config()


def load(*overrides: str) -> gin_utils.Configuration:
  files = ["gin/runs/continue.gin"]
  return gin_utils.load(files, [*CONTINUE, *overrides])


@pytest.mark.parametrize("word", ["false", "no", "off", "False", "OFF", "No"])
def test_words_for_false(word):
  assert load(f"--gin.ALLOW_PICKLE={word}").macro("ALLOW_PICKLE") is False
  load(f"--gin.contrast.Contrast.normalize={word}")
  assert gin.config.query_parameter("Contrast.normalize") is False


@pytest.mark.parametrize("word", ["true", "yes", "on", "TRUE"])
def test_words_for_true(word):
  assert load(f"--gin.ALLOW_PICKLE={word}").macro("ALLOW_PICKLE") is True


def test_words_for_none():
  load("--gin.RunOptions.hang_seconds=none")
  assert gin.config.query_parameter("RunOptions.hang_seconds") is None


def test_a_word_stays_text_where_text_is_meant():
  """A folder may be called off."""
  assert load("--gin.INIT_FROM=off").macro("INIT_FROM") == "off"


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("SEED=abc", "SEED = 'abc' .*takes a whole number"),
    ("PEAK_RATE=2e-5x", "PEAK_RATE = '2e-5x' .*takes a number"),
    ("ROW_LENGTH=512.0", "takes a whole number; write 512"),
    ("HELD_OUT=0.05", "HELD_OUT = 0.05 .*takes a whole number"),
    ("STEPS=true", "STEPS = 'true' .*takes a whole number"),
    ("STEPS=True", "STEPS = True .*takes a whole number"),
    ("ALLOW_PICKLE=maybe", "takes True or False"),
    ("ALLOW_PICKLE=0", "ALLOW_PICKLE = 0 .*takes True or False"),
    ("OBJECTIVES=MLM_TLM", "the setting of that name is %MLM_TLM"),
    ("RunOptions.log_every=often", "options.RunOptions.log_every = 'often'"),
    ("RunOptions.hang_seconds=x", "takes a number or None"),
  ],
)
def test_values_of_another_type(override, message):
  with pytest.raises(InputError, match=message):
    load(f"--gin.{override}")


def test_whole_numbers_are_numbers():
  load("--gin.PEAK_RATE=1")
