"""From manifests to a catalogue, and whether it is sound."""
