// Prints what the page's readers make of files, for tests: node read.mjs PAGE FILE AXIS, or PAGE noise SEED MEMBERS CHANNELS HEIGHT WIDTH.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [page, what, ...rest] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${page}/${name}`).href);
if (what === "noise") {
  const { noise } = await load("noise.js");
  console.log(JSON.stringify(Array.from(noise(...rest.map(Number)))));
} else if (what === "looked") {
  const { looked } = await load("noise.js");
  console.log(JSON.stringify(looked(...rest.map((text) => JSON.parse(text)))));
} else {
  const { readFile } = await load("read.js");
  try {
    const found = await readFile(new Blob([readFileSync(what)]), Number(rest[0] ?? 2));
    const slices = Array.from({ length: found.slices }, (_, i) => found.slice(i));
    const told = slices.map(({ channels, height, width, pixels }) => ({ channels, height, width, pixels: Array.from(pixels) }));
    console.log(JSON.stringify({ shown: found.shown, slices: told }));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message }));
  }
}
