"""The report as one self-contained page: the decision first, then what led to it, drawn from the artefacts alone."""
