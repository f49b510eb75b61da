"""What devices send: the least for the parameters, whatever the queue."""

import argparse
import dataclasses

import bench_collectives
from bench_common import Preset

SMALL = Preset(2, 64, 2, 128, 512, 256, 1)
OPTIONS = argparse.Namespace(
  dtype="float32", attention="xla", remat="none", unroll=1, microbatches=1
)


def test_parameters_move_once_and_the_queue_never():
  found = [
    bench_collectives.measure(
      dataclasses.replace(SMALL, queue=queue), "zero1", 8, OPTIONS
    )
    for queue in (256, 2048)
  ]
  assert found[0]["sent"] == found[1]["sent"]
  # The batch's vectors are a larger share than at the size of a real model.
  assert found[0]["least"] < found[0]["sent"] < 1.1 * found[0]["least"]
