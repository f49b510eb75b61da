"""Names of tensors inside what training programs wrap around a model."""

# Before the names of the whole model: torch's DataParallel and DDP, Lightning,
# DeepSpeed, sentence-transformers.
_BEFORE = (
  "module.",
  "model.",
  "_forward_module.",
  "0.auto_model.",
  "auto_model.",
)
# Anywhere: torch.compile, FSDP, activation checkpointing.
_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def unwrapped(name: str) -> list[str]:
  """The names that a tensor may have in the model itself, the longest first.

  >>> unwrapped("module.model.embed.weight")
  ['module.model.embed.weight', 'model.embed.weight', 'embed.weight']
  """
  names = [name]
  for wrapper in _INSIDE:
    if wrapper in names[-1]:
      names.append(names[-1].replace(wrapper, ""))
  while wrapper := next((w for w in _BEFORE if names[-1].startswith(w)), ""):
    names.append(names[-1].removeprefix(wrapper))
  return names
