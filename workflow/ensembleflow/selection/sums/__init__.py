"""Sums over samples that the losses are made of: compiled, on a GPU, or by a Dask cluster."""
