"use strict";
// A picture of a region on a map; the page carries it.

const config = JSON.parse(document.getElementById("config").textContent);
const byId = (id) => document.getElementById(id);

function show(lon, lat) {
  const row = clamp(Math.floor((lat + 90) * 10), 0, 1799), col = clamp(Math.floor((lon + 180) * 10), 0, 3599);
  map.box = [(col - 1800) / 10, (row - 900) / 10, (col - 1799) / 10, (row - 899) / 10];
  map.redraw();
  const heading = document.createElement("h2"), place = document.createElement("p");
  heading.textContent = `grid_${((col * 10 - 17995) / 100).toFixed(2)}_${((row * 10 - 8995) / 100).toFixed(2)}`;
  place.textContent = `longitude ${lon.toFixed(5)}, latitude ${lat.toFixed(5)}`;
  byId("details").replaceChildren(heading, place);
}

byId("title").textContent = `${config.title}, ${config.year}`;
byId("about").textContent = `${config.tiles} ${config.tiles === 1 ? "tile" : "tiles"} in false colour.`;
byId("picture").href = config.image;
const map = new SmallMap(byId("map"), { maxZoom: 17, onSelect: show });
map.home = config.bounds;
map.outline = config.outline;
map.hasScale = true;
byId("closer").addEventListener("click", () => map.zoomBy(1));
byId("further").addEventListener("click", () => map.zoomBy(-1));
byId("whole").addEventListener("click", () => map.fit(config.bounds));
const image = new Image();
image.onload = () => {
  map.layers = [{ key: "picture", image, bounds: config.bounds }];
  map.fit(config.bounds);
};
image.src = config.image;
