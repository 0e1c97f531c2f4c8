"""Made-up tiles in upstream's formats, for tests and the demonstration; never TESSERA data."""
