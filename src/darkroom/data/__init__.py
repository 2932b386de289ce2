"""Pictures and captions: where they come from, and the one format in which every later stage finds them."""
