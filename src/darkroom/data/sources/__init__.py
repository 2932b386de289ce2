"""Where pictures come from: drawn by code, torchvision's data sets, folders, captioned folders, tar shards."""
