"use strict";
// A small map on a canvas: Web Mercator, tiles of 256 px or one picture per layer, moved by mouse, touch
// and keyboard. It loads nothing but what its layers load. Shared by the coverage map and previews.

const TILE = 256;
const MAX_LATITUDE = 85.0511287798066;

// Positions in the world, 0..1 from the west and from the north.
const toWorld = (lon, lat) => {
  const sin = Math.sin(Math.max(-MAX_LATITUDE, Math.min(MAX_LATITUDE, lat)) * Math.PI / 180);
  return [(lon + 180) / 360, 0.5 - Math.log((1 + sin) / (1 - sin)) / (4 * Math.PI)];
};
const toLonLat = (x, y) => [
  (((x % 1) + 1) % 1) * 360 - 180,
  Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180 / Math.PI,
];
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

class SmallMap {
  /**
   * @param {HTMLCanvasElement} canvas  focusable, sized by its style
   * @param {{maxZoom?: number, onSelect?: (lon: number, lat: number) => void, onMove?: () => void}} options
   */
  constructor(canvas, { maxZoom = 12, onSelect = () => {}, onMove = () => {} } = {}) {
    Object.assign(this, { canvas, maxZoom, onSelect, onMove });
    this.context = canvas.getContext("2d");
    this.center = [0.5, 0.5];
    this.zoom = 1;
    this.layers = []; // {key, maxZoom, load(z, x, y)} or {key, image, bounds}
    this.box = null; // west, south, east, north that is outlined
    this.outline = []; // lines of [lon, lat]
    this.hasScale = false; // whether a scale bar is drawn
    this.home = [-180, -60, 180, 75];
    this.tiles = new Map();
    this.pointers = new Map();
    this.waiting = false;
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
    this.listen();
  }

  // ------------------------------------------------------------------------------------- where

  get scale() { return TILE * 2 ** this.zoom; } // pixels of the world

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth || 300;
    this.height = this.canvas.clientHeight || 150;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.ratio = ratio;
    this.redraw();
  }

  fit([west, south, east, north], margin = 0.08) {
    const [x0, y1] = toWorld(west, south), [x1, y0] = toWorld(east, north);
    const span = Math.max((x1 - x0) / this.width, (y1 - y0) / this.height, 1e-9) * (1 + 2 * margin);
    this.zoom = Math.log2(1 / (span * TILE));
    this.moveTo((x0 + x1) / 2, (y0 + y1) / 2);
  }

  moveTo(x, y) {
    this.zoom = clamp(this.zoom, this.minZoom(), this.maxZoom + 0.99);
    const half = this.height / 2 / this.scale;
    this.center = [((x % 1) + 1) % 1, half >= 0.5 ? 0.5 : clamp(y, half, 1 - half)];
    this.redraw();
    this.onMove();
  }

  minZoom() { return Math.log2(Math.max(this.width / 1.5, 200) / TILE); }

  toScreen(x, y) {
    return [(x - this.center[0]) * this.scale + this.width / 2, (y - this.center[1]) * this.scale + this.height / 2];
  }

  fromScreen(px, py) {
    return [this.center[0] + (px - this.width / 2) / this.scale, this.center[1] + (py - this.height / 2) / this.scale];
  }

  zoomAt(px, py, change) {
    const [x, y] = this.fromScreen(px, py);
    this.zoom = clamp(this.zoom + change, this.minZoom(), this.maxZoom + 0.99);
    this.moveTo(x - (px - this.width / 2) / this.scale, y - (py - this.height / 2) / this.scale);
  }

  pan(dx, dy) { this.moveTo(this.center[0] + dx / this.scale, this.center[1] + dy / this.scale); }

  // ------------------------------------------------------------------------------------- input

  listen() {
    const canvas = this.canvas;
    const at = (event) => {
      const frame = canvas.getBoundingClientRect();
      return [event.clientX - frame.left, event.clientY - frame.top];
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, at(event));
      this.moved = this.pointers.size > 1;
      this.start = at(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      const now = at(event);
      // A finger or a shaky hand may move a little and still mean a click.
      if (!this.moved && Math.hypot(now[0] - this.start[0], now[1] - this.start[1]) < 6) return;
      this.moved = true;
      this.pointers.set(event.pointerId, now);
      if (this.pointers.size === 1) this.pan(before[0] - now[0], before[1] - now[1]);
      if (this.pointers.size === 2) {
        const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
        const distance = (a, b) => Math.max(Math.hypot(a[0] - b[0], a[1] - b[1]), 1);
        this.pan((before[0] - now[0]) / 2, (before[1] - now[1]) / 2);
        this.zoomAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2, Math.log2(distance(now, other) / distance(before, other)));
      }
    });
    const lift = (event) => {
      const was = this.pointers.delete(event.pointerId);
      if (event.type === "pointerup" && was && !this.moved) this.select(...at(event));
    };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === 1 ? 30 : 1);
      this.zoomAt(...at(event), clamp(-pixels / 300, -1, 1));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = 80;
      const actions = {
        ArrowLeft: () => this.pan(-step, 0), ArrowRight: () => this.pan(step, 0),
        ArrowUp: () => this.pan(0, -step), ArrowDown: () => this.pan(0, step),
        "+": () => this.zoomBy(1), "=": () => this.zoomBy(1), "-": () => this.zoomBy(-1),
        Home: () => this.fit(this.home),
        Enter: () => this.select(this.width / 2, this.height / 2),
        " ": () => this.select(this.width / 2, this.height / 2),
      };
      if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      actions[event.key]();
    });
    for (const name of ["focus", "blur"]) canvas.addEventListener(name, () => this.redraw());
  }

  zoomBy(change) { this.zoomAt(this.width / 2, this.height / 2, change); }

  select(px, py) {
    const [lon, lat] = toLonLat(...this.fromScreen(px, py));
    this.onSelect(lon, lat);
  }

  // ----------------------------------------------------------------------------------- drawing

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  draw() {
    const { context } = this;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.fillStyle = "#f3f6f9";
    context.fillRect(0, 0, this.width, this.height);
    context.imageSmoothingEnabled = false;
    for (const layer of this.layers) layer.load ? this.drawTiles(layer) : this.drawImage(layer);
    this.drawLines();
    this.drawOutline();
    if (this.box) this.drawBox(this.box, "#d1242f", 3);
    if (this.hasScale) this.drawScale();
    if (document.activeElement === this.canvas && this.canvas.matches(":focus-visible")) this.drawCross();
  }

  drawOutline() {
    const { context } = this;
    context.lineJoin = "round";
    for (const [colour, width] of [["#111827", 4], ["#ffffff", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      for (const line of this.outline) {
        context.beginPath();
        for (const [lon, lat] of line) context.lineTo(...this.toScreen(...toWorld(lon, lat)));
        context.stroke();
      }
    }
  }

  // The longest bar of 1, 2 or 5 times a power of ten metres, at the latitude of the middle, on WGS84.
  scaleBar(most = 120) {
    const lat = toLonLat(...this.center)[1] * Math.PI / 180;
    const perDegree = Math.PI / 180 * 6378137 * Math.cos(lat) / Math.sqrt(1 - 0.00669437999014 * Math.sin(lat) ** 2);
    const metresPerPixel = perDegree * 360 / this.scale, longest = most * metresPerPixel;
    const power = 10 ** Math.floor(Math.log10(longest));
    const metres = power * [5, 2, 1].find((n) => n * power <= longest * (1 + 1e-9));
    return { metres, pixels: metres / metresPerPixel, label: metres >= 1000 ? `${metres / 1000} km` : `${metres} m` };
  }

  drawScale() {
    const { context } = this, { pixels, label } = this.scaleBar();
    context.font = "13px system-ui, sans-serif";
    const width = Math.max(pixels, context.measureText(label).width) + 16, top = this.height - 44;
    context.fillStyle = "rgba(17, 24, 39, 0.67)";
    context.fillRect(10, top, width, 34);
    context.fillStyle = "#ffffff";
    context.textBaseline = "top";
    context.fillText(label, 18, top + 6);
    context.fillRect(18, top + 25, pixels, 3);
  }

  drawTiles(layer) {
    const wanted = Math.round(this.zoom + Math.log2(Math.min(this.ratio, 2)));
    const z = clamp(wanted, 0, layer.maxZoom), n = 2 ** z;
    const [x0, y0] = this.fromScreen(0, 0), [x1, y1] = this.fromScreen(this.width, this.height);
    for (let y = Math.max(0, Math.floor(y0 * n)); y <= Math.min(n - 1, Math.floor(y1 * n)); y++) {
      for (let x = Math.floor(x0 * n); x <= Math.floor(x1 * n); x++) {
        // Edges are rounded one by one, so that neighbours meet without a gap.
        const [left, top] = this.toScreen(x / n, y / n).map(Math.round);
        const [right, bottom] = this.toScreen((x + 1) / n, (y + 1) / n).map(Math.round);
        this.drawTile(layer, z, ((x % n) + n) % n, y, left, top, right - left, bottom - top);
      }
    }
  }

  drawTile(layer, z, x, y, left, top, width, height) {
    if (this.tile(layer, z, x, y, true)) {
      const image = this.tile(layer, z, x, y, false).image;
      if (image) this.context.drawImage(image, left, top, width, height);
      return;
    }
    for (let up = 1; up <= Math.min(z, 6); up++) { // until it is here, a part of what is
      const found = this.tile(layer, z - up, x >> up, y >> up, false);
      if (!found) continue;
      const part = TILE >> up, mask = (1 << up) - 1;
      if (found.image) {
        this.context.drawImage(found.image, (x & mask) * part, (y & mask) * part, part, part, left, top, width, height);
      }
      return;
    }
  }

  // Returns {image} of a loaded tile, image null if there is nothing in it; else asks for it if told to.
  tile(layer, z, x, y, ask) {
    const key = `${layer.key}/${z}/${x}/${y}`;
    const found = this.tiles.get(key);
    if (found) {
      this.tiles.delete(key); // to the end: the first are the first to go
      this.tiles.set(key, found);
      return found.ready ? found : null;
    }
    if (!ask) return null;
    const entry = { image: null, ready: false };
    this.tiles.set(key, entry);
    if (this.tiles.size > 600) this.tiles.delete(this.tiles.keys().next().value);
    layer.load(z, x, y).then((image) => { entry.image = image; }, () => {}).finally(() => {
      entry.ready = true;
      this.redraw();
    });
    return null;
  }

  drawImage({ image, bounds: [west, south, east, north] }) {
    const [left, bottom] = this.toScreen(...toWorld(west, south));
    const [right, top] = this.toScreen(...toWorld(east, north));
    this.context.imageSmoothingEnabled = right - left < image.width;
    this.context.drawImage(image, left, top, right - left, bottom - top);
  }

  drawBox([west, south, east, north], color, width) {
    const [left, bottom] = this.toScreen(...toWorld(west, south));
    const [right, top] = this.toScreen(...toWorld(east, north));
    this.context.strokeStyle = color;
    this.context.lineWidth = width;
    this.context.strokeRect(left, top, right - left, bottom - top);
  }

  drawCross() {
    const { context } = this, x = this.width / 2, y = this.height / 2;
    context.strokeStyle = "#1f2328";
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(x - 10, y); context.lineTo(x + 10, y);
    context.moveTo(x, y - 10); context.lineTo(x, y + 10);
    context.stroke();
  }

  drawLines() {
    const { context } = this;
    const degrees = 360 / this.scale * 90;
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60].find((s) => s >= degrees) || 60;
    const digits = step < 1 ? 1 : 0;
    const [x0, y0] = this.fromScreen(0, 0), [x1, y1] = this.fromScreen(this.width, this.height);
    const south = toLonLat(0, Math.min(y1, 1))[1], north = toLonLat(0, Math.max(y0, 0))[1];
    context.strokeStyle = "rgba(101, 109, 118, .3)";
    context.lineWidth = 1;
    context.font = "12px system-ui, sans-serif";
    const label = (text, x, y) => {
      context.strokeStyle = "rgba(243, 246, 249, .85)";
      context.lineWidth = 3;
      context.strokeText(text, x, y);
      context.fillStyle = "#57606a";
      context.fillText(text, x, y);
      context.strokeStyle = "rgba(101, 109, 118, .3)";
      context.lineWidth = 1;
    };
    const line = (ax, ay, bx, by) => { context.beginPath(); context.moveTo(ax, ay); context.lineTo(bx, by); context.stroke(); };
    for (let i = Math.ceil((x0 * 360 - 180) / step); i * step <= x1 * 360 - 180; i++) {
      const x = Math.round(this.toScreen((i * step + 180) / 360, 0)[0]) + 0.5;
      line(x, 0, x, this.height);
      const lon = ((i * step + 540) % 360 + 360) % 360 - 180;
      label(`${Math.abs(lon).toFixed(digits)}°${lon < 0 ? " W" : lon > 0 ? " E" : ""}`, x + 3, this.height - 5);
    }
    for (let i = Math.ceil(Math.max(south, -85) / step); i * step <= Math.min(north, 85); i++) {
      const lat = i * step, y = Math.round(this.toScreen(0, toWorld(0, lat)[1])[1]) + 0.5;
      line(0, y, this.width, y);
      if (y > 14 && y < this.height - 24) label(`${Math.abs(lat).toFixed(digits)}°${lat < 0 ? " S" : lat > 0 ? " N" : ""}`, 4, y - 3);
    }
  }
}
