"""A first config for a folder of images: what is found in it, what suits that, how long it takes."""
