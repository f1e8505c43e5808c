"""Prints the JSON Schema of specs: `python -m pipeline.spec > specs/spec.schema.json`."""

import sys

from pipeline.spec.load import export_schema

sys.stdout.write(export_schema())
