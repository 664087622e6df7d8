"""Families of networks that come along, each a file as a user would write it (docs/own-networks.md)."""
