"""Checks the JobSets of rendered manifests against the types of Kubeflow Trainer's API, and writes each one's Jobs to standard
output, so that whatever checks a Job checks them too. Fields that JobSet does not have are errors.

    python jobset.py RENDERED.yaml > JOBS.yaml
"""

import sys

import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet as JobSet
from strict import lost

ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts", "RestartJob", "RestartJobAndIgnoreMaxRestarts"}


def faults(jobset):
    spec = jobset["spec"]
    yield from lost(jobset, JobSet.from_dict(jobset).to_dict(), "JobSet")
    jobs = {job["name"] for job in spec["replicatedJobs"]}
    rules = spec.get("failurePolicy", {}).get("rules", [])
    for rule in rules:
        if rule["action"] not in ACTIONS:
            yield f"failurePolicy: no action {rule['action']}"
    for named in [spec.get("successPolicy", {}), *rules]:
        for job in named.get("targetReplicatedJobs", []):
            if job not in jobs:
                yield f"no replicated job {job}"


def main(path):
    with open(path) as file:
        objects = [read for read in yaml.safe_load_all(file) if read]
    failed = False
    for jobset in (read for read in objects if read["kind"] == "JobSet"):
        for fault in faults(jobset):
            print(f"{path}: {jobset['metadata']['name']}: {fault}", file=sys.stderr)
            failed = True
        for job in jobset["spec"]["replicatedJobs"]:
            name = f"{jobset['metadata']['name']}-{job['name']}-0"
            metadata = {"name": name, "namespace": jobset["metadata"]["namespace"], **job["template"].get("metadata", {})}
            print("---")
            yaml.safe_dump({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job["template"]["spec"]}, sys.stdout)
    return 1 if failed else 0


sys.exit(main(*sys.argv[1:]))
