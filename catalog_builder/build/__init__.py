"""Building a catalogue from manifests, and validating it."""
