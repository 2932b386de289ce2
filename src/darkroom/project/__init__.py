"""The project that stages work in: the code that each depends on, and outputs that were kept without a rerun."""
