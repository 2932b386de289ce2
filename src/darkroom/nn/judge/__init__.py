"""The judges: networks that evaluation looks at pictures with."""
