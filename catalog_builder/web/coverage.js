"use strict";
// The coverage page: collections, years, counts, and what a tile has. Map tiles come from the server, or,
// in a page saved as one file, from the grid of years that it carries.

const config = JSON.parse(document.getElementById("config").textContent);
const byId = (id) => document.getElementById(id);
const CLASSES = ["full", "latest", "partial"];
const FIRST_YEAR = 2000, COLS = 3600, ROWS = 1800;

// ---------------------------------------------------------------- a grid that the page itself carries

class Grid {
  static async open({ row0, col0, rows, cols, masks, wide, data }) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const raw = await new Response(stream).arrayBuffer();
    const index = wide ? new Uint16Array(raw) : new Uint8Array(raw);
    return Object.assign(new Grid(), { row0, col0, rows, cols, masks, index });
  }

  mask(row, col) {
    const r = row - this.row0, c = col - this.col0;
    return r < 0 || c < 0 || r >= this.rows || c >= this.cols ? 0 : this.masks[this.index[r * this.cols + c]];
  }

  // The same rules as catalog/coverage/tiles.py; a test compares the pixels.
  draw(z, x, y, years, year) {
    const codes = new Map([[0, 4]]);
    for (const mask of this.masks) {
      if (mask) codes.set(mask, year && !(mask >>> (year - FIRST_YEAR) & 1) ? 3 : CLASSES.indexOf(classOf(mask, years)));
    }
    const size = TILE * 2 ** z, L = config.levels;
    const edge = (px) => Math.floor((x * TILE + px) * COLS / size);
    const column = (px) => clamp(edge(px), 0, COLS - 1);
    const row = (py) => {
      const lat = Math.atan(Math.sinh(Math.PI * (1 - 2 * (y * TILE + py) / size))) * 180 / Math.PI;
      return clamp(Math.floor((lat + 90) * 10), 0, ROWS - 1);
    };
    const image = new ImageData(TILE, TILE);
    const put = (px, py, code, level) => {
      if (code === 4) return;
      const [r, g, b, alpha] = config.colors[code];
      image.data.set([r, g, b, Math.round(255 * alpha * (level + 1) / L)], 4 * (py * TILE + px));
    };
    if (size >= COLS) {
      const lines = size / COLS >= config.linesFrom;
      for (let py = 0, above = row(-0.5); py < TILE; py++) {
        const r = row(py + 0.5);
        for (let px = 0, before = column(-0.5); px < TILE; px++) {
          const c = column(px + 0.5);
          put(px, py, codes.get(this.mask(r, c)), lines && (r !== above || c !== before) ? (L >> 1) - 1 : L - 1);
          before = c;
        }
        above = r;
      }
    } else {
      for (let py = 0; py < TILE; py++) {
        const low = row(py + 1), high = Math.max(row(py), low + 1);
        for (let px = 0; px < TILE; px++) {
          const first = column(px), last = edge(px + 1);
          const counts = [0, 0, 0, 0, 0];
          // From the row with the lower edge up to, without, the one with the upper.
          for (let r = low; r < high; r++) for (let c = first; c < last; c++) counts[codes.get(this.mask(r, c))]++;
          let best = 0;
          for (let k = 1; k < 3; k++) if (counts[k] > counts[best]) best = k;
          let held = counts[0] + counts[1] + counts[2];
          if (!held) { best = 3; held = counts[3]; }
          const share = Math.min(held / ((high - low) * (last - first)), 1);
          if (held) put(px, py, best, clamp(Math.ceil(Math.sqrt(share) * L) - 1, 0, L - 1));
        }
      }
    }
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = TILE;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }
}

const bits = (years) => years.reduce((mask, year) => (mask | 1 << (year - FIRST_YEAR)) >>> 0, 0);
function classOf(mask, years) {
  if (mask === bits(years)) return "full";
  return mask === bits(years.slice(-1)) ? "latest" : "partial";
}

// -------------------------------------------------------------------------------------------- state

let collection, year = 0, grid = null;
const map = new SmallMap(byId("map"), { maxZoom: config.maxZoom, onSelect: show, onMove: remember });

function fetchTile(z, x, y) {
  const address = collection.tiles.replace("{z}", z).replace("{x}", x).replace("{y}", y) + (year ? `&year=${year}` : "");
  return new Promise((done) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => done(null);
    image.src = address;
  });
}

function update() {
  const { years } = collection, shown = year, drawn = grid;
  map.layers = [{
    key: `${collection.id}/${year}`,
    maxZoom: config.maxZoom,
    load: collection.tiles ? fetchTile : async (z, x, y) => drawn.draw(z, x, y, years, shown),
  }];
  map.redraw();
  const latest = years[years.length - 1];
  const names = {
    full: years.length > 1 ? `all ${years.length} years` : `${latest}`,
    latest: `only ${latest}`, partial: "some of the years", elsewhere: `not ${year}`,
  };
  const counts = collection.counts[year || "all"];
  byId("year-shown").textContent = year || "all years";
  byId("legend").replaceChildren(...Object.keys(names).filter((name) => counts[name] && (year || name !== "elsewhere")).map((name) => {
    const [r, g, b, alpha] = config.colors[[...CLASSES, "elsewhere"].indexOf(name)];
    const swatch = element("span", "", "swatch");
    swatch.style.background = `rgba(${r}, ${g}, ${b}, ${alpha})`;
    const entry = element("li");
    entry.append(swatch, element("span", names[name]), element("span", counts[name].toLocaleString("en"), "count"));
    return entry;
  }));
  const n = counts.full + counts.latest + counts.partial;
  byId("total").textContent = `${n.toLocaleString("en")} tiles${year ? ` of ${year}` : ""}`;
  remember();
}

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// ------------------------------------------------------------------------------------- what is there

async function lookUp(lon, lat) {
  if (collection.at) {
    const answer = await fetch(`${collection.at}&lon=${lon.toFixed(5)}&lat=${lat.toFixed(5)}`);
    if (!answer.ok) throw new Error((await answer.json()).description);
    return answer.json();
  }
  const row = clamp(Math.floor((lat + 90) * 10), 0, ROWS - 1), col = clamp(Math.floor((lon + 180) * 10), 0, COLS - 1);
  const mask = grid.mask(row, col);
  return {
    tile: `grid_${((col * 10 - 17995) / 100).toFixed(2)}_${((row * 10 - 8995) / 100).toFixed(2)}`,
    bounds: [(col - 1800) / 10, (row - 900) / 10, (col - 1799) / 10, (row - 899) / 10],
    items: collection.years.filter((y) => mask >>> (y - FIRST_YEAR) & 1).map((y) => ({ year: y })),
  };
}

let asked = 0;
async function show(lon, lat) {
  const turn = ++asked;
  const details = byId("details");
  let found;
  try {
    found = await lookUp(lon, lat);
  } catch (error) {
    if (turn === asked) details.replaceChildren(element("p", `No response: ${error.message}`));
    return;
  }
  if (turn !== asked) return; // a later click was answered first
  map.box = found.bounds;
  map.redraw();
  const list = element("ul", "", "years");
  list.append(...found.items.map((item) => {
    const entry = element("li");
    if (item.href) {
      const link = element("a", item.year);
      link.href = item.browser || item.href;
      entry.append(link);
      if (item.browser) {
        const json = element("a", "JSON", "small");
        json.href = item.href;
        entry.append(" ", json);
      }
    } else {
      entry.append(element("span", item.year));
    }
    return entry;
  }));
  details.replaceChildren(element("h2", found.tile), found.items.length ? list : element("p", "No tile here."));
}

// ------------------------------------------------------------------------------- the page's address

let pending = 0;
function remember() {
  clearTimeout(pending); // browsers refuse too many changes a second
  pending = setTimeout(() => {
    if (!collection) return;
    const [lon, lat] = toLonLat(...map.center);
    const where = `${map.zoom.toFixed(2)}/${lat.toFixed(4)}/${lon.toFixed(4)}`;
    history.replaceState(null, "", `#collection=${collection.id}&year=${year || "all"}&map=${where}`);
  }, 300);
}

async function choose(id, keepView = false) {
  collection = config.collections.find((c) => c.id === id) || config.collections[0];
  byId("collection").value = collection.id;
  const slider = byId("year");
  slider.max = collection.years.length;
  if (!collection.years.includes(year)) year = 0;
  slider.value = year ? collection.years.indexOf(year) + 1 : 0;
  grid = collection.grid ? await Grid.open(collection.grid) : null;
  map.home = collection.bounds;
  map.box = null;
  byId("details").replaceChildren(element("p", "Choose a tile on the map, or a place below.", "hint"));
  if (!keepView) map.fit(collection.bounds);
  update();
}

function start() {
  const said = new URLSearchParams(location.hash.slice(1));
  byId("collection").replaceChildren(...config.collections.map((c) => new Option(c.title, c.id)));
  byId("choose").hidden = config.collections.length < 2;
  byId("collection").addEventListener("change", (event) => choose(event.target.value));
  byId("year").addEventListener("input", (event) => {
    year = +event.target.value ? collection.years[event.target.value - 1] : 0;
    event.target.setAttribute("aria-valuetext", year || "all years");
    update();
  });
  byId("closer").addEventListener("click", () => map.zoomBy(1));
  byId("further").addEventListener("click", () => map.zoomBy(-1));
  byId("whole").addEventListener("click", () => map.fit(collection.bounds));
  byId("goto").addEventListener("submit", (event) => {
    event.preventDefault();
    const lon = +byId("lon").value, lat = +byId("lat").value;
    map.zoom = Math.max(map.zoom, 8);
    map.moveTo(...toWorld(lon, lat));
    show(lon, lat);
  });
  year = +said.get("year") || 0;
  const [zoom, lat, lon] = (said.get("map") || "").split("/").map(Number);
  const placed = [zoom, lat, lon].every(Number.isFinite) && said.get("map");
  if (placed) {
    map.zoom = zoom;
    map.moveTo(...toWorld(lon, lat));
  }
  choose(said.get("collection"), placed);
}

start();
