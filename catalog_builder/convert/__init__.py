"""From .npy pairs and GeoTIFFs to Cloud Optimized GeoTIFFs, and the ledger of what was done."""
