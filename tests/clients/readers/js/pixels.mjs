// Read a window of a TIFF with geotiff.js: node pixels.mjs URL OUT X Y WIDTH HEIGHT
// Writes the bands one after the other, in the type of the file; prints the version.
import { readFileSync, writeFileSync } from "node:fs";
import { fromUrl } from "geotiff";

const [url, out, ...numbers] = process.argv.slice(2);
const [x, y, width, height] = numbers.map(Number);
const tiff = await fromUrl(url);
const image = await tiff.getImage();
const bands = await image.readRasters({ window: [x, y, x + width, y + height] });
writeFileSync(out, Buffer.concat(bands.map((b) => Buffer.from(b.buffer, b.byteOffset, b.byteLength))));
const about = new URL("./node_modules/geotiff/package.json", import.meta.url);
console.log(JSON.parse(readFileSync(about)).version);
