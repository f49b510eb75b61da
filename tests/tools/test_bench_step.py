"""The benchmark's batches: those of the program it is measured beside."""

import importlib.util

import numpy as np

import bench_common


def test_token_ids_are_the_peers(shared):
  path = shared / "peers" / "hf_infoxlm.py"
  spec = importlib.util.spec_from_file_location("peer", path)
  peer = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(peer)
  args = peer.parse_args(["--preset", "tiny"])
  preset = bench_common.PRESETS["tiny"]
  for name, ours in (
    ("layers", preset.layers),
    ("hidden", preset.hidden),
    ("vocab", preset.vocab),
    ("queue", preset.queue),
    ("xlco_layer", preset.contrast_layer),
  ):
    assert getattr(args, name) == ours
  for step in (0, 3):
    theirs = peer.make_batch(args, step)
    mine = bench_common.synthetic(args.seed, step, preset.vocab)
    for stream in ("mlm", "tlm"):
      np.testing.assert_array_equal(
        mine[stream]["tokens"][0], theirs[f"{stream}_ids"]
      )
      labels = theirs[f"{stream}_labels"]
      np.testing.assert_array_equal(
        mine[stream]["targets"][0], np.where(labels == peer.PAD, -1, labels)
      )
    for side, name in (("query", "src_ids"), ("key", "tgt_ids")):
      np.testing.assert_array_equal(
        mine["xlco"][side]["tokens"][0], theirs[name]
      )
    slots = (mine["mlm"]["targets"] >= 0).sum(-1)
    assert (slots == 19).all()  # what Bench gives each row
