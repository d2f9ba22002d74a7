"""Checks the PodMonitors of rendered manifests against the types of the Prometheus Operator's API. Fields that it does not have
are errors.

    python podmonitor.py RENDERED.yaml…
"""

import sys

import yaml
from cloudcoil.models.prometheus_operator.v1 import PodMonitor
from strict import lost


def faults(monitor):
    kept = PodMonitor.model_validate(monitor).model_dump(mode="json", by_alias=True, exclude_none=True)
    yield from lost(monitor, kept, "PodMonitor")


def main(paths):
    failed = False
    for path in paths:
        with open(path) as file:
            objects = [read for read in yaml.safe_load_all(file) if read]
        for monitor in (read for read in objects if read["kind"] == "PodMonitor"):
            for fault in faults(monitor):
                print(f"{path}: {monitor['metadata']['name']}: {fault}", file=sys.stderr)
                failed = True
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
