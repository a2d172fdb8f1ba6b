"""What is counted for Prometheus, where several processes may serve one address.

Each counts for itself, in a file of a folder that all have, and whoever is asked adds them up
(prometheus_client, "Multiprocess Mode"). A process that serves alone has no folder.
"""

import os

from prometheus_client import CollectorRegistry


def counted_by_all(registry: CollectorRegistry) -> CollectorRegistry:
    """What this process counts in its registry, together with what its siblings do."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")  # as its library names it
    if not folder:
        return registry
    from prometheus_client.multiprocess import MultiProcessCollector

    together = CollectorRegistry()
    MultiProcessCollector(together, folder)  # type: ignore[no-untyped-call]  # has none
    return together
