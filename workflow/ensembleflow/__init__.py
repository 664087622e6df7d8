"""From labelled images to a served ensemble of deep networks that fits an inference budget."""

__version__ = "0.1.0"
