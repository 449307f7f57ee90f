"""From whatever people give as an image to a tensor of pixels, and to the views that are cut from it."""
