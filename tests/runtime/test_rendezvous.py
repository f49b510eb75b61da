"""Missing processes are named: real sockets, in threads of this process."""

import socket
import threading
import time

import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import rendezvous
from infoxlm_jax.runtime.cluster import Place

FACTS = {"jax": "1.2", "configuration": "abc"}


def free_port() -> int:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return int(free.getsockname()[1])


def called(
  numbers, count, seconds=20.0, facts=FACTS, port=None, counts=(), late=()
):
  """The verdict that each arriving process gets; None if all is well."""
  port = port or free_port()
  heard = {}

  def one(key, number):
    if number in late:
      time.sleep(0.6)
    place = Place("127.0.0.1", port, dict(counts).get(number, count), number)
    own = facts.get(number, FACTS) if facts is not FACTS else FACTS
    try:
      heard[key] = rendezvous.hold(place, own, seconds)
    except InputError as error:
      heard[key] = str(error)

  threads = [
    threading.Thread(target=one, args=(f"{number} ({n})", number))
    for n, number in enumerate(numbers)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  # A thread that died of another error has left no message.
  assert len(heard) == len(numbers), heard
  return list(heard.values())


@pytest.mark.parametrize("late", [(), (0,), (2,)])
def test_all_there_whoever_comes_first(late):
  assert called([2, 0, 1], 3, late=late) == [None] * 3


def test_the_port_is_free_at_once_for_the_coordinator():
  port = free_port()
  assert called([0, 1], 2, port=port) == [None] * 2
  with socket.create_server(("", port)):
    pass


def test_two_of_three_say_which_is_missing():
  for message in called([0, 1], 3, seconds=1.5):
    assert message.startswith("process 2 of 3 is missing: process 0 waited")


def test_several_missing_are_all_named():
  heard = called([0, 3], 5, seconds=1.5)
  assert [m.partition(":")[0] for m in heard] == [
    "processes 1, 2, 4 of 5 are missing"
  ] * 2


def test_without_process_0_the_others_say_so():
  for message in called([1, 2], 3, seconds=1.5):
    assert message.startswith("process 0 of 3 is missing: process ")
    assert "refused" in message


def test_two_with_one_number():
  for message in called([0, 1, 1], 3, seconds=10):
    assert "two processes have the number 1 of 3" in message


def test_another_count():
  for message in called([0, 1], 2, counts={1: 3}.items()):
    assert "process 1 was told of 3 processes, process 0 of 2" in message


def test_another_configuration_or_version():
  other = {1: FACTS | {"configuration": "xyz"}}
  for message in called([0, 1], 2, facts=other):
    assert "process 1 differs from process 0 in its configuration" in message
    assert "xyz, not abc" in message and "jax" not in message


@pytest.mark.parametrize(
  "noise", [b"GET / HTTP/1.1\r\n\r\n", b"", b"[1, 2]\n", b'{"number": "1"}\n']
)
def test_a_stranger_at_the_port_does_no_harm(noise):
  port = free_port()
  done = threading.Event()

  def stranger():
    while not done.is_set():
      try:
        with socket.create_connection(("127.0.0.1", port), 1) as line:
          line.sendall(noise)
      except OSError:
        pass
      time.sleep(0.05)

  thread = threading.Thread(target=stranger)
  thread.start()
  try:
    assert called([0, 1], 2, port=port, late=(1,)) == [None] * 2
  finally:
    done.set()
    thread.join()


def test_one_that_left_again_is_missing():
  """It leaves before the last one comes, or all would have been there."""
  port = free_port()

  def fleeting():
    time.sleep(0.2)  # the first one listens then
    with socket.create_connection(("127.0.0.1", port), 5) as line:
      line.sendall(b'{"number": 1, "count": 3, "facts": {}}\n')

  thread = threading.Thread(target=fleeting)
  thread.start()
  heard = called(
    [0, 2], 3, seconds=4, port=port, facts={0: {}, 2: {}}, late=(2,)
  )
  thread.join()
  for message in heard:
    assert message.startswith("process 1 of 3 is missing")


def test_a_port_in_use():
  with socket.create_server(("", 0)) as other:
    heard = called([0], 2, seconds=0.6, port=other.getsockname()[1])
  assert "cannot use port" in heard[0]
