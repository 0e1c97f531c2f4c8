"""Who is asking, and which collections that reader may see."""
