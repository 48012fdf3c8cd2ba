"""Helm's own engine, at work on a chart: lints it strictly and renders it, for each set of values in a file.

    chart.py CHART VALUES.json

VALUES.json is a list; so is what is printed, with `findings`, `objects`, and why Helm `refused`, for each.
"""
import json
import sys

import helm_python as helm
import yaml


def objects(rendered):
    for name, text in sorted(rendered.items()):
        if name.endswith(".yaml"):
            yield from (found for found in yaml.safe_load_all(text) if found)


def look(chart, values):
    try:
        findings = helm.lint(chart, values, strict=True)["messages"]
        with helm.Chart.load(chart) as loaded:
            rendered = loaded.render(values, name="team", namespace="build", is_install=True)
    except helm.HelmError as error:
        return {"findings": [], "objects": [], "refused": str(error)}
    return {"findings": findings, "objects": list(objects(rendered)), "refused": None}


chart, values = sys.argv[1:]
with open(values, encoding="utf-8") as file:
    json.dump([look(chart, one) for one in json.load(file)], sys.stdout)
