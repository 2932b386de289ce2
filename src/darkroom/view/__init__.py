"""Whatever makes a picture to look at: sheets, strips, films, curves."""
