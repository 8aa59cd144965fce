"""The charts of the report, as plotly figures. Each comes with a sentence that gives its numbers."""
