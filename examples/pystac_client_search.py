"""Find tile-years with pystac-client: by place, time, property; count, sort and page.

Run: TESSERA_API=http://localhost:8000/ python examples/pystac_client_search.py
"""

import os

from pystac_client import Client

API = os.environ.get("TESSERA_API", "http://localhost:8000/")
COLLECTION = os.environ.get("TESSERA_COLLECTION", "tessera-synthetic")
BBOX = [float(v) for v in os.environ.get("TESSERA_BBOX", "0.0,52.1,0.2,52.3").split(",")]

catalog = Client.open(API)
for collection in catalog.get_collections():
    years = collection.to_dict()["summaries"]["tessera:year"]
    print(f"{collection.id}: {collection.title}, {years[0]} to {years[-1]}")

search = catalog.search(collections=[COLLECTION], bbox=BBOX, sortby="-datetime", limit=100)
print(f"\n{search.matched()} tile-years in {BBOX}, newest first")
for item in search.items():
    kind = "SYNTHETIC" if item.properties.get("tessera:synthetic") else "TESSERA"
    state = "converted" if item.properties["tessera:cog"] else "as published"
    print(f"  {item.id}  {kind}, {state}, {item.properties['proj:code']}")

only = catalog.search(collections=[COLLECTION], bbox=BBOX, filter="tessera:cog = true")
print(f"\n{only.matched()} of them are converted to COGs")
