#!/usr/bin/env python3
"""Writes service_monitor.json and prometheus_rule.json: the fields of the Prometheus operator's own
definitions, with their types and patterns and without their descriptions, out of the models that PyPI
has of them. Run where those are installed, by hand when they shall be newer:

    python3 -m venv models && models/bin/pip install cloudcoil.models.prometheus_operator==0.80.1.0
    models/bin/python tests/e2e/crds/make.py
"""
import importlib.metadata
import json
import os

from cloudcoil.models.prometheus_operator import v1

PACKAGE = "cloudcoil.models.prometheus_operator"
FILES = {"service_monitor.json": v1.ServiceMonitor, "prometheus_rule.json": v1.PrometheusRule}


def reduced(schema):
    """What validation needs, and stricter: of fields that are not named a cluster drops the values,
    and here they are errors."""
    if isinstance(schema, list):
        return [reduced(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    out = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):  # names, of which some are as those below
            out[key] = {name: reduced(one) for name, one in value.items()}
        elif key == "anyOf":
            # What is left out is None to a model; an object has it not.
            kinds = [reduced(one) for one in value if one != {"type": "null"}]
            out.update(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})
        elif key == "pattern":
            # Go writes flags after the start of a pattern, Python before it.
            out[key] = f"(?i)^{value[5:]}" if value.startswith("^(?i)") else value
        elif key not in ("title", "description", "default"):
            out[key] = reduced(value)
    if "properties" in out:
        out["additionalProperties"] = False
    return out


def main():
    folder = os.path.dirname(os.path.abspath(__file__))
    about = importlib.metadata.metadata(PACKAGE)
    version = about["Version"]
    for name, model in FILES.items():
        schema = reduced(model.model_json_schema(by_alias=True))
        schema["required"] = sorted({"apiVersion", "kind", "metadata", *schema["required"]})
        comment = (f"A {model.__name__} (monitoring.coreos.com/v1), by make.py beside this from the "
                   f"package {PACKAGE} {version} ({about['License']}), which is made of the "
                   f"definitions of prometheus-operator v{version.rsplit('.', 1)[0]} (Apache-2.0).")
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump({"$comment": comment, **schema}, file, indent=1)
            file.write("\n")


main()
