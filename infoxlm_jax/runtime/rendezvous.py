"""Waits for all processes before jax starts, and names missing ones.

jax.distributed.initialize of jax 0.10.2 does not say which are missing: at its
initialization_timeout it aborts the process (134) with "DEADLINE_EXCEEDED:
RegisterTask". Its service lists the missing, in process 0 only, after a
timeout of its own, an hour, which `initialize` does not pass on. Nor does it
compare versions or settings. Therefore process 0 first listens for a minute at
the port that jax's coordinator will use; the others send their number and
facts; and process 0 sends the verdict to all. A message is one line of JSON.
"""

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime.cluster import Place

_LONGEST = 4096  # bytes of a message
_PAUSE = 0.5


def hold(place: Place, facts: Mapping[str, str], seconds: float) -> None:
  """Returns when all processes of the run have arrived with equal facts.

  Args:
    place: of this process.
    facts: values that must be equal in all processes, by name.
    seconds: how long to wait.

  Raises:
    InputError: processes are missing, or one differs from process 0. Every
      process that arrived raises it with the same message.
  """
  end = time.monotonic() + seconds
  if place.number == 0:
    problem = _call(place, facts, seconds, end)
  else:
    problem = _answer(place, facts, seconds, end)
  if problem:
    raise InputError(problem)


def _call(
  place: Place, facts: Mapping[str, str], seconds: float, end: float
) -> str | None:
  """Process 0: listens until all have arrived; returns the problem or None."""
  here: dict[int, socket.socket] = {}
  problem = None
  with contextlib.ExitStack() as stack:
    listener = stack.enter_context(_listen(place, seconds, end))
    while not problem:
      here = {n: line for n, line in here.items() if _still_there(line)}
      if len(here) == place.count - 1:
        break
      listener.settimeout(max(end - time.monotonic(), 0.01))
      try:
        caller = stack.enter_context(listener.accept()[0])
      except TimeoutError:
        problem = _missing(place, here, seconds)
        break
      caller.settimeout(2)
      said = _receive(caller)
      number = said.get("number")
      if not isinstance(number, int):
        continue  # not a process of this run
      problem = _difference(number, said, place, facts)
      if number in here:
        problem = (
          f"two processes have the number {number} of {place.count}: start"
          " each with a number of its own"
        )
        _send(here[number], {"problem": problem})
      here[number] = caller
    for caller in here.values():
      _send(caller, {"problem": problem})
    for caller in here.values():
      # They hang up first, so that the port is free at once.
      caller.settimeout(2)
      with contextlib.suppress(OSError):
        caller.recv(1)
  return problem


def _answer(
  place: Place, facts: Mapping[str, str], seconds: float, end: float
) -> str | None:
  """Any other process: calls until process 0 answers; returns its verdict."""
  mine = {"number": place.number, "count": place.count, "facts": dict(facts)}
  reason = "nothing answers"
  while time.monotonic() < end:
    try:
      with socket.create_connection((place.host, place.port), 5) as line:
        _send(line, mine)
        # Process 0 may have come last, and then it waits for others.
        line.settimeout(seconds + 5)
        said = _receive(line)
      if "problem" in said:
        return said["problem"]
      # An earlier run's coordinator may still hold the port.
      reason = "what answers is no process of this run"
    except OSError as error:
      reason = str(error)
    time.sleep(_PAUSE)
  return (
    f"process 0 of {place.count} is missing: process {place.number} found"
    f" nobody at {place.host}:{place.port} for {seconds:g} s ({reason})."
    " Start the same command on every host; its port must be open between them"
  )


def _listen(place: Place, seconds: float, end: float) -> socket.socket:
  """A listener on all addresses of this machine, as the coordinator's."""
  dual = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if dual else socket.AF_INET
  while True:
    try:
      return socket.create_server(
        ("", place.port),
        family=family,
        dualstack_ipv6=dual,
        backlog=place.count,
      )
    except OSError as error:
      if time.monotonic() > end:
        raise InputError(
          f"process 0 of {place.count} cannot use port {place.port} of this"
          f" machine, for {seconds:g} s: {error}. Another run uses it: end"
          " that, or choose another port"
        ) from None
    time.sleep(_PAUSE)


def _missing(place: Place, here: Mapping[int, Any], seconds: float) -> str:
  gone = [n for n in range(1, place.count) if n not in here]
  some = ", ".join(str(n) for n in gone[:20])
  more = f" and {len(gone) - 20} more" if len(gone) > 20 else ""
  who = (
    f"process {some} of {place.count} is missing"
    if len(gone) == 1
    else f"processes {some}{more} of {place.count} are missing"
  )
  return (
    f"{who}: process 0 waited {seconds:g} s at {place.host}:{place.port}."
    " Start the same command on every host; this port must be open between"
    " them, and what a missing one printed says more"
  )


def _difference(
  number: int, said: Mapping[str, Any], place: Place, facts: Mapping[str, str]
) -> str | None:
  if said.get("count") != place.count or not 0 < number < place.count:
    return (
      f"process {number} was told of {said.get('count')} processes, process 0"
      f" of {place.count}: start the same command on every host"
    )
  theirs = said.get("facts", {})
  names = [name for name in facts if theirs.get(name) != facts[name]]
  if not names:
    return None
  values = "; ".join(f"{n}: {theirs.get(n)}, not {facts[n]}" for n in names)
  return (
    f"process {number} differs from process 0 in its {' and '.join(names)}"
    f" ({values}): install the same, and start the same command, on every host"
  )


def _still_there(line: socket.socket) -> bool:
  line.setblocking(False)
  try:
    return bool(line.recv(1, socket.MSG_PEEK))
  except BlockingIOError:
    return True
  except OSError:
    return False


def _send(line: socket.socket, message: Mapping[str, Any]) -> None:
  with contextlib.suppress(OSError):  # who left is found missing later
    line.settimeout(2)
    line.sendall(json.dumps(message).encode() + b"\n")


def _receive(line: socket.socket) -> dict[str, Any]:
  """One message; {} for anything else."""
  received = b""
  with contextlib.suppress(OSError, ValueError, RecursionError):
    while not received.endswith(b"\n") and len(received) < _LONGEST:
      part = line.recv(_LONGEST)
      if not part:
        break
      received += part
    message = json.loads(received)
    if isinstance(message, dict):
      return message
  return {}
