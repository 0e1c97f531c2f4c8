"""The ledger of a conversion: what was made from what."""
