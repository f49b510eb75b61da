"""The notebooks run from top to bottom, on a small model."""

import json
import os

import pytest
import small_model


def execute(root, tmp_path, plain_env, name, changes=()):
  """Runs a notebook in tmp_path; returns the outputs of its cells.

  Args:
    changes: (text of a cell, what stands in its place).
  """
  import nbformat
  from nbclient import NotebookClient

  book = nbformat.read(root / "docs" / "notebooks" / name, as_version=4)
  nbformat.validate(book)
  for old, new in changes:
    (cell,) = (cell for cell in book.cells if old in cell.source)
    cell.source = cell.source.replace(old, new)
  env = plain_env | {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",  # most of the time is compiling
    "PYTHONPATH": os.pathsep.join(
      [str(root), os.environ.get("PYTHONPATH", "")]
    ),
  }
  del env["MPLBACKEND"]  # notebooks have their own
  client = NotebookClient(
    book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
  )
  client.execute(env=env)
  return [out for cell in book.cells for out in cell.get("outputs", ())]


def pictures(outputs):
  return sum("image/png" in out.get("data", {}) for out in outputs)


def said(outputs):
  return "".join(
    out.get("text", "") + out.get("data", {}).get("text/plain", "")
    for out in outputs
  )


@pytest.mark.slow
def test_the_embedding_space(root, tmp_path, plain_env):
  outputs = execute(
    *(root, tmp_path, plain_env, "embedding_space.ipynb"),
    [("runs/quickstart", str(small_model.folder()))],
  )
  assert pictures(outputs) == 3
  text = said(outputs)
  assert "layer 3 of 3, pooling mean" in text
  assert "'ru': (300, 32)" in text


@pytest.mark.slow
def test_continuing_a_checkpoint(root, tmp_path, plain_env):
  outputs = execute(root, tmp_path, plain_env, "continue_checkpoint.ipynb")
  assert pictures(outputs) == 1
  text = said(outputs)
  assert "xlm-roberta, 2 layers of 32, 8,002 ids" in text
  assert "model.safetensors" in text
  run = tmp_path / "runs" / "continue" / "run"
  results = json.loads((run / "results.json").read_text())
  assert results["finished"] and results["steps"] == 30
