"""The update of bench_step.py in PyTorch, as one would tune it there.

    python tools/bench_torch.py --preset base --rows 8 --length 512

MLM and TLM in one pass through the encoder, logits of masked places alone, the
contrast against a queue, the key encoder's average in one fused call, scaled
dot-product attention, fused AdamW, torch.compile, bfloat16 through autocast
with float32 weights. It reads the batches of bench_step.py, which fill their
rows, so it needs no attention mask, which suits its flash kernel. One JSON
line last.
"""

import argparse
import dataclasses
import json
import resource
import statistics
import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_common import PRESETS, Batch, Preset, Rows, synthetic

_OFFSET = 2  # RoBERTa's first position
_MOMENTUM, _TEMPERATURE = 0.999, 0.25


class Layer(nn.Module):
  """A post-LN transformer layer."""

  def __init__(self, preset: Preset) -> None:
    super().__init__()
    d = preset.hidden
    self.heads = preset.heads
    self.qkv = nn.Linear(d, 3 * d)
    self.attention_out = nn.Linear(d, d)
    self.attention_norm = nn.LayerNorm(d, 1e-5)
    self.ffn_in = nn.Linear(d, preset.ffn)
    self.ffn_out = nn.Linear(preset.ffn, d)
    self.ffn_norm = nn.LayerNorm(d, 1e-5)

  def forward(self, x: Tensor) -> Tensor:
    """x [rows, tokens, hidden] to the same."""
    rows, tokens, d = x.shape
    qkv = self.qkv(x).view(rows, tokens, 3, self.heads, d // self.heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v)
    y = self.attention_out(y.transpose(1, 2).reshape(rows, tokens, d))
    x = self.attention_norm(x + y)
    return self.ffn_norm(x + self.ffn_out(F.gelu(self.ffn_in(x))))


class Encoder(nn.Module):
  """Embeddings and layers; of the key encoder the first ones."""

  def __init__(self, preset: Preset, layers: int, length: int) -> None:
    super().__init__()
    d = preset.hidden
    padded = -(-preset.vocab // 128) * 128
    self.token = nn.Embedding(padded, d)
    self.position = nn.Embedding(max(512, length) + _OFFSET, d)
    self.norm = nn.LayerNorm(d, 1e-5)
    self.layers = nn.ModuleList(Layer(preset) for _ in range(layers))

  def forward(self, ids: Tensor, layers: int) -> Tensor:
    """ids [rows, tokens] to hidden states after so many layers."""
    positions = torch.arange(ids.shape[1], device=ids.device) + _OFFSET
    x = self.norm(self.token(ids) + self.position(positions))
    for layer in self.layers[:layers]:
      x = layer(x)
    return x


class Model(nn.Module):
  """The encoder with the heads of the three losses."""

  def __init__(self, preset: Preset, length: int) -> None:
    super().__init__()
    d = preset.hidden
    self.preset = preset
    self.encoder = Encoder(preset, preset.layers, length)
    self.dense = nn.Linear(d, d)
    self.head_norm = nn.LayerNorm(d, 1e-5)
    self.bias = nn.Parameter(torch.zeros(self.encoder.token.num_embeddings))
    self.projection = nn.Parameter(0.02 * torch.randn(d, d))

  def forward(
    self,
    ids: Tensor,
    places: Tensor,
    targets: Tensor,
    query: Tensor,
    keys: Tensor,
    queue: Tensor,
  ) -> Tensor:
    """The mean loss over all masked tokens and contrast items.

    Args:
      ids: [rows, tokens] of MLM and TLM.
      places, targets: [targets] places in ids.reshape(-1), and what was there.
      query: ids of one side of the pairs; keys: vectors of the other side.
      queue: vectors of earlier updates.
    """
    hidden = self.encoder(ids, self.preset.layers)
    x = hidden.reshape(-1, hidden.shape[-1])[places]
    x = self.head_norm(F.gelu(self.dense(x)))
    logits = F.linear(x, self.encoder.token.weight, self.bias)
    # Rows that pad the vocabulary never get probability.
    logits = logits[:, : self.preset.vocab]
    total = F.cross_entropy(logits.float(), targets, reduction="sum")
    q = self.vectors(query, self.encoder).float()
    own = (q * keys).sum(1, keepdim=True)
    scores = torch.cat([own, q @ queue.T], 1) / _TEMPERATURE
    contrast = (torch.logsumexp(scores, 1) - scores[:, 0]).sum()
    return (total + contrast) / (len(targets) + len(q))

  def vectors(
    self, ids: Tensor, encoder: nn.Module, projection: Any = None
  ) -> Tensor:
    """Vectors of `<s>` at the contrast's layer, projected."""
    first = encoder(ids, self.preset.contrast_layer)[:, 0]
    return first @ (self.projection if projection is None else projection)


class Update:
  """One update at a time, with the state that it changes."""

  def __init__(
    self, preset: Preset, shape: Rows, device: str, compiled: bool, dtype: str
  ) -> None:
    torch.manual_seed(0)
    self.model = Model(preset, shape.length).to(device)
    for name, value in self.model.named_parameters():
      if "norm" not in name and value.dim() > 1:
        nn.init.normal_(value, std=0.02)
    self.key_encoder = Encoder(preset, preset.contrast_layer, shape.length).to(
      device
    )
    wanted = self.model.encoder.state_dict()
    self.key_encoder.load_state_dict(
      {name: wanted[name] for name in self.key_encoder.state_dict()}
    )
    self.key_projection = self.model.projection.detach().clone()
    own = dict(self.model.encoder.named_parameters())
    names = [name for name, _ in self.key_encoder.named_parameters()]
    self.keys = [*self.key_encoder.parameters(), self.key_projection]
    self.followed = [*(own[name] for name in names), self.model.projection]
    self.queue = F.normalize(
      torch.randn(preset.queue, preset.hidden, device=device), dim=1
    )
    self.at = 0
    self.optimizer = torch.optim.AdamW(
      self.model.parameters(),
      lr=2e-4,
      betas=(0.9, 0.98),
      eps=1e-6,
      weight_decay=0.01,
      fused=device == "cuda",
    )
    self.device, self.cast = device, dtype == "bfloat16"
    self.loss: Any = torch.compile(self.model) if compiled else self.model
    vectors = self.model.vectors
    self.vectors: Any = torch.compile(vectors) if compiled else vectors

  def __call__(self, batch: Batch) -> Tensor:
    """The loss of a batch of synthetic(); the state is one update further."""
    ids, places, targets = _masked(batch, self.device)
    query, key = (
      _tensor(batch["xlco"][side]["tokens"], self.device)
      for side in ("query", "key")
    )
    with torch.autocast(self.device, torch.bfloat16, enabled=self.cast):
      with torch.no_grad():
        keys = self.vectors(key, self.key_encoder, self.key_projection).float()
      loss: Tensor = self.loss(ids, places, targets, query, keys, self.queue)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
    self.optimizer.step()
    self.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
      torch._foreach_lerp_(self.keys, self.followed, 1 - _MOMENTUM)
      self.queue[self.at : self.at + len(keys)] = keys
    self.at = (self.at + len(keys)) % len(self.queue)
    return loss.detach()


def _tensor(ids: Any, device: str) -> Tensor:
  return torch.from_numpy(ids.reshape(-1, ids.shape[-1])).long().to(device)


def _masked(batch: Batch, device: str) -> tuple[Tensor, Tensor, Tensor]:
  """Ids of MLM and TLM, places in them that are targets, and the targets."""
  both = [batch["mlm"], batch["tlm"]]
  ids = torch.cat([_tensor(one["tokens"], device) for one in both])
  labels = torch.cat([_tensor(one["targets"], device) for one in both])
  labels = labels.reshape(-1)
  places = torch.nonzero(labels >= 0)[:, 0]
  return ids, places, labels[places]


def main() -> int:
  """Parses flags, measures, prints one JSON line last."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--preset", choices=PRESETS, default="base")
  parser.add_argument("--rows", type=int, default=8, help="of each stream")
  parser.add_argument("--length", type=int, default=512)
  parser.add_argument("--queue", type=int, help="keys; default: the preset's")
  parser.add_argument("--dtype", default="bfloat16")
  parser.add_argument("--steps", type=int, default=10)
  parser.add_argument("--warm", type=int, default=3)
  parser.add_argument(
    "--compile", action=argparse.BooleanOptionalAction, default=True
  )
  options = parser.parse_args()
  preset = PRESETS[options.preset]
  if options.queue:
    preset = dataclasses.replace(preset, queue=options.queue)
  device = "cuda" if torch.cuda.is_available() else "cpu"
  torch.set_float32_matmul_precision("high")
  shape = Rows(options.rows, options.length)
  update = Update(preset, shape, device, options.compile, options.dtype)
  taken, losses = [], []
  for number in range(options.warm + options.steps):
    batch = synthetic(1, number, preset.vocab, shape)
    _wait(device)
    start = time.perf_counter()
    loss = update(batch)
    _wait(device)
    if number >= options.warm:
      taken.append(time.perf_counter() - start)
    losses.append(round(float(loss), 5))
  seconds = statistics.median(taken)
  tokens = 4 * shape.rows * shape.length
  peak = None
  if device == "cuda":
    peak = round(torch.cuda.max_memory_allocated() / 2**20, 1)
  report = {
    "device": torch.cuda.get_device_name() if device == "cuda" else device,
    "torch": torch.__version__,
    "seconds_per_step": round(seconds, 5),
    "min": round(min(taken), 5),
    "max": round(max(taken), 5),
    "tokens_per_second": round(tokens / seconds, 1),
    "peak_device_mib": peak,
    "peak_rss_mib": round(
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1
    ),
    "losses": losses,
  }
  print(json.dumps(report))
  return 0


def _wait(device: str) -> None:
  if device == "cuda":
    torch.cuda.synchronize()


if __name__ == "__main__":
  sys.exit(main())
