"""Prints the JSON Schema of reports: `python -m pipeline.report > pipeline/report/report.schema.json`."""

import sys

from pipeline.report.render import export_report_schema

sys.stdout.write(export_report_schema())
