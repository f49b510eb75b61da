"""The job that prepares corpora into a folder that training reads (DATA)."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from infoxlm_jax.data.corpora.base import Corpus, say_unused
from infoxlm_jax.data.corpora.held_out_pairs import held_out_pairs
from infoxlm_jax.data.corpora.open_files import Patterns
from infoxlm_jax.data.prepare import pipeline, summary
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.data.tokenizers.export import why_not_exported
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import resources

_CLEANING = Cleaning()


def prepare(
  *,
  model_dir: str,
  tokenizer: str,
  corpora: Sequence[Corpus],
  row_length: int = 512,
  max_side: int = 254,
  seed: int = 0,
  cleaning: Cleaning = _CLEANING,
  held_out: int = 0,
  held_out_test: int = 0,
  dev_pairs: Patterns | None = None,
  test_pairs: Patterns | None = None,
  pairs_together: int = 1,
  stores: Mapping[str, str] | None = None,
  retrieval: Mapping[str, str] | None = None,
  workers: int | None = None,
  on_start: Callable[[], None] = lambda: None,
  dry_run: bool = False,
) -> None:
  """Prepares corpora into model_dir and prints the report.

  Started again after a stop, it continues; a folder that is complete is used
  as it is.

  Args:
    model_dir: folder to write; `model_dir.partial` until it is complete.
    tokenizer, corpora, row_length, max_side, seed, cleaning, held_out,
      held_out_test, dev_pairs, test_pairs, pairs_together, stores, retrieval,
      workers: see pipeline.prepare.
    on_start: called when the folder is complete; until then it must be empty.
    dry_run: print the corpora and the tokenizer, and write nothing.

  Raises:
    InputError, StorageError, Stopped: see pipeline.prepare.
  """
  model = load_tokenizer(resources.find(tokenizer))
  if why := why_not_exported(model):
    logging.warning(why)
  if dry_run:
    print(f"{model.vocab_size:,} token ids, from {model.path}")
    for corpus in [*corpora, *held_out_pairs(dev_pairs, test_pairs)]:
      print(f"{corpus.kind}: {corpus.name}, {', '.join(corpus.splits())}")
      for line in say_unused(corpus):
        print(line)
    return
  if "://" in model_dir:
    raise InputError(
      f"MODEL_DIR={model_dir!r} is an address; prepare needs a folder of this "
      "machine."
    )
  folder = pipeline.prepare(
    Path(model_dir),
    tokenizer=tokenizer,
    row_length=row_length,
    corpora=corpora,
    seed=seed,
    max_side=max_side,
    cleaning=cleaning,
    stores=stores,
    retrieval=retrieval,
    held_out=held_out,
    held_out_test=held_out_test,
    dev_pairs=dev_pairs,
    test_pairs=test_pairs,
    pairs_together=pairs_together,
    workers=workers,
  )
  on_start()
  print((folder / summary.REPORT).read_text("utf-8"))
  print(f"Train on it with --gin.DATA={folder}")
