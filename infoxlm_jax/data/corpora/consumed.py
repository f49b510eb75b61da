"""How much of its input this process has read: what an ETA needs.

One number for the whole process, as time.process_time() is one: readers add to
it, and who shows progress looks at it. Nothing else depends on it.
"""

_bytes = 0.0


def add(count: float) -> None:
  """Notes that so many bytes of input were read, packed ones as they lie."""
  global _bytes
  _bytes += count


def so_far() -> float:
  """Bytes of input that were read since the process began."""
  return _bytes
