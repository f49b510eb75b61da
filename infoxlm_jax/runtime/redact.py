"""Leaves secrets out of a command that is written to a file."""

import re
from collections.abc import Sequence

HIDDEN = "***"

# Names of what is secret; not TOKENIZER, nor tokens that are counted.
_SECRET_NAME = re.compile(
  r"secret|passw|api_?key|access_?key|private_?key|credential|bearer"
  r"|(?<![a-z])(token|auth|authorization|pwd)(?![a-z])",
  re.IGNORECASE,
)
# user:password@ of an address, values of its query, and tokens by the shapes
# that Hugging Face, GitHub, Amazon, OpenAI, Slack and JSON web tokens have.
_SECRET_VALUE = re.compile(
  r"(?<=://)[^/@\s]+(?=@)"
  r"|(?<=[?&])[^=&\s]+=[^&\s]+"
  r"|\bhf_\w{16,}|\bgh[a-z]_\w{16,}|\bgithub_pat_\w{16,}|\bAKIA[0-9A-Z]{12,}"
  r"|\bsk-[\w-]{16,}|\bxox[a-z]-[\w-]{8,}|\beyJ[\w-]{8,}\.[\w.-]+"
)


def redacted(arguments: Sequence[str]) -> list[str]:
  """The arguments of a command, with *** in the place of secrets.

  Secret is the value of an option whose name says so (--gin.HF_TOKEN=...,
  --password ...), and what looks like a password or token in any argument.

  >>> redacted(["--gin.HF_TOKEN=abc", "--gin.TOKENIZER=a.model"])
  ['--gin.HF_TOKEN=***', '--gin.TOKENIZER=a.model']
  """
  out = []
  value_follows = False
  for argument in arguments:
    name, equals, value = argument.partition("=")
    option = argument.startswith("-")
    secret = option and _SECRET_NAME.search(name) is not None
    if value_follows and not option:
      out.append(HIDDEN)
    elif secret and equals:
      out.append(f"{name}={HIDDEN}")
    else:
      out.append(_SECRET_VALUE.sub(HIDDEN, argument))
    value_follows = secret and not equals
  return out
