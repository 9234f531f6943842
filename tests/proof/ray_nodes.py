"""A Ray cluster of two nodes on this machine, in a process of its own: it obeys lines of standard input.

It prints a JSON object at first, and after each line: "remove" removes the second node, "add" adds one.
"""

from __future__ import annotations

import json
import logging
import os
import sys

from ray.cluster_utils import Cluster

CPUS = 1
# Messages of Ray must not mix with the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
logging.disable()


def main() -> None:
    """Start the nodes, and obey until standard input ends."""
    common = {"num_cpus": CPUS, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**common, "include_dashboard": False})
    nodes = [cluster.head_node, cluster.add_node(**common)]
    answer(cluster, nodes)
    for line in sys.stdin:
        if line.strip() == "remove":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        else:
            nodes.append(cluster.add_node(**common))
        answer(cluster, nodes)
    cluster.shutdown()


def answer(cluster: Cluster, nodes: list) -> None:
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    answers.write(json.dumps({"address": cluster.address, "raylets": raylets}) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
