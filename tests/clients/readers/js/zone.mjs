// Read a window of a zone's arrays with zarrita: node zone.mjs URL GROUP OUT TIME ROW COL HEIGHT WIDTH
// Writes the codes (band, y, x) and then the scales (y, x); prints the version.
import { readFileSync, writeFileSync } from "node:fs";
import * as zarr from "zarrita";

const [url, group, out, ...numbers] = process.argv.slice(2);
const [time, row, col, height, width] = numbers.map(Number);
const root = zarr.root(new zarr.FetchStore(url));
const at = [zarr.slice(row, row + height), zarr.slice(col, col + width)];
const parts = [];
for (const [name, first] of [["embeddings", [time, null]], ["scales", [time]], ["y", null]]) {
  const array = await zarr.open.v3(root.resolve(`${group}/${name}`), { kind: "array" });
  const { data } = await zarr.get(array, first === null ? [at[0]] : [...first, ...at]);
  parts.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
}
writeFileSync(out, Buffer.concat(parts));
const about = new URL("./node_modules/zarrita/package.json", import.meta.url);
console.log(JSON.parse(readFileSync(about)).version);
