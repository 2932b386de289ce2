"""How pictures are drawn unless asked otherwise, where the model itself does not say. Imports nothing, for --help."""

EXAMPLE = "a small red circle above a large blue square"  # of --help and the documents: one that the default draws
BATCH_SIZE = 64  # pictures drawn at once
STRENGTH = 0.6  # of image to image: keeps where things are and lets them change
INPAINT_STRENGTH = 0.8  # of inpainting: what is masked is replaced, and still says a little of where things are
