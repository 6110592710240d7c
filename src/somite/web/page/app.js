// The page: what is chosen, asked of the worker, and shown.

import { drawn, grey, laid, masked, warm } from "./draw.js";
import { readFile } from "./read.js";

const at = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let asked = 0;
let told; // what the model's file says of itself
let opened; // the file: see readFile
let shown; // the slice that was answered, with its answer

worker.onmessage = ({ data: { id, value, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(value);
  else reject(new Error(error));
};
worker.onerror = (event) => {
  event.preventDefault();
  failed(new Error(location.protocol === "file:" ? "browsers open no model from file://; show this folder by a server" : "the worker could not be started"));
};

function ask(message) {
  return new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject });
    worker.postMessage({ ...message, id: asked });
  });
}

function say(text) {
  at("status").textContent = text;
}

function failed(error) {
  say("");
  at("error").textContent = error.message;
  at("error").hidden = false;
}

function well() {
  at("error").hidden = true;
  at("error").textContent = "";
}

async function load(engine) {
  well();
  say("Opening the model …");
  at("again").disabled = true;
  try {
    told = await ask({ load: engine });
  } catch (error) {
    if (engine === "webgpu") {
      at("engine").value = "wasm";
      await load("wasm");
      at("hint").textContent = "The graphics card cannot run this model here, so the processor does.";
      at("hint").hidden = false;
      return;
    }
    failed(new Error(`the model could not be opened (${error.message}); reload the page, or make it again with somite web`));
    return;
  }
  describe();
  say("Ready. Choose an image, or drop one.");
  at("again").disabled = !opened;
}

function describe() {
  document.title = `${told.name}: segment in the browser`;
  at("name").textContent = told.name;
  at("notice").textContent = told.notice;
  const drawnNoise = told.inputs.includes("noise");
  at("members-field").hidden = at("seed-field").hidden = at("spread-figure").hidden = at("save-spread").hidden = !drawnNoise;
  if (!at("about").rows.length) at("members").value = told.members;
  const size = told.size === null ? "the image's own" : Array.isArray(told.size) ? `${told.size.join(" x ")} px` : `${told.size} px the longer side`;
  const rows = {
    Network: told.network, "Looks at": `${told.channels} channels, ${size}`, Brightness: told.normalise.class, Classes: told.classes.join(", "),
    Fusion: told.fusion.class, Recipe: told.recipe_sha256.slice(0, 16), Weights: told.weights_sha256.slice(0, 16), "Made by": `somite ${told.somite}`,
  };
  at("about").replaceChildren(...Object.entries(rows).map(([name, value]) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    const cell = document.createElement("td");
    cell.textContent = value;
    row.append(head, cell);
    return row;
  }));
}

async function open(file) {
  if (!file) return;
  well();
  say(`Reading ${file.name} …`);
  at("results").hidden = true;
  at("hint").hidden = true;
  opened = undefined;
  try {
    if (!told) throw new Error("the model is not open yet; try again in a moment");
    opened = { ...(await readFile(file, told.axis)), name: file.name };
  } catch (error) {
    failed(new Error(`${file.name}: ${error.message}`));
    return;
  }
  at("again").disabled = false;
  at("slice-field").hidden = opened.slices === 1;
  at("slice").max = opened.slices;
  at("slice").value = opened.first + 1;
  if (opened.shown !== "photo" && told.whole_case) {
    at("hint").textContent =
      "The brightness of this slice is normalised by itself; somite predict takes the whole volume's, so masks may differ a little.";
    at("hint").hidden = false;
  }
  if (opened.lossy) {
    at("hint").textContent =
      "This JPG is decoded by the browser, which rounds otherwise than somite predict, so a few pixels at the edge of the mask may be others. PNG gives the same numbers.";
    at("hint").hidden = false;
  }
  sliced();
  await segment();
}

function sliced() {
  const text = `${at("slice").value} of ${opened?.slices ?? 1}`;
  at("slice-told").textContent = text;
  at("slice").setAttribute("aria-valuetext", text);
}

let busy = false;
let again = false;

async function segment() {
  if (!opened) return;
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  well();
  say("Segmenting …");
  try {
    const image = opened.slice(Number(at("slice").value) - 1);
    fitting(image);
    const members = whole("members", 1, 100);
    const found = await ask({ image, members, seed: whole("seed", 0, 4294967295) });
    shown = { ...found, image, members, layout: laid({ ...image, shown: opened.shown }) };
    show();
  } catch (error) {
    at("results").hidden = true;
    failed(new Error(`${opened.name}: ${error.message}`));
  }
  busy = false;
  if (again) {
    again = false;
    await segment();
  }
}

function whole(id, low, high) {
  const value = Number(at(id).value);
  if (!Number.isInteger(value) || value < low || value > high) throw new Error(`${id} must be a whole number from ${low} to ${high}`);
  return value;
}

function fitting({ channels, pixels }) {
  const either = told.channels === 1 || told.channels === 3;
  if (channels !== told.channels && !(either && (channels === 1 || channels === 3)))
    throw new Error(`the image has ${channels} channels and this model takes ${told.channels}`);
  if (told.normalise.class === "Unit" && pixels.some((value) => value < -1e-3 || value > 1.001))
    throw new Error("this model was trained on photographs, whose values lie in [0, 1], and these are a scanner's numbers");
}

function show() {
  const { image, layout, mask, probability, spread, members } = shown;
  const count = image.height * image.width;
  const several = told.maps > 1;
  const foreground = several ? probability.slice(0, count).map((value) => 1 - value) : probability;
  const widest = several ? Float32Array.from({ length: count }, (_, place) => {
    let most = 0;
    for (let map = 0; map < told.maps; map++) most = Math.max(most, spread[map * count + place]);
    return most;
  }) : spread;
  const top = Math.max(0.01, widest.reduce((a, b) => Math.max(a, b), 0));
  drawn(at("mask"), layout, image, masked(grey(image), mask, image, at("filled").checked));
  drawn(at("probability"), layout, image, warm(foreground, 1));
  drawn(at("spread"), layout, image, warm(widest, top));
  at("spread-top").textContent = top.toFixed(2);
  const shares = told.classes.slice(1).map((label, index) => {
    const area = mask.reduce((sum, value) => sum + (value === index + 1), 0) / count;
    return `${told.classes.length > 2 ? `class ${label}` : "the mask"} covers ${(100 * area).toFixed(1)} % of the image`;
  }).join(", ");
  const mean = (values) => values.reduce((a, b) => a + b, 0) / count;
  at("mask").setAttribute("aria-label", `Image with its mask: ${shares}`);
  at("probability").setAttribute("aria-label", `Probability of the foreground, ${mean(foreground).toFixed(2)} on average`);
  at("spread").setAttribute("aria-label", `Spread of ${members} members, ${top.toFixed(2)} at most`);
  const by = shown.engine === "webgpu" ? "graphics card" : "processor";
  at("summary").textContent = `${opened.name}: ${shares}.`;
  say(`Done in ${shown.seconds.toFixed(1)} s by the ${by}: ${shares}.`);
  at("results").hidden = false;
  at("results").answer = shown; // for programs that drive the page
}

function save(kind) {
  const { image, layout, mask, probability, spread } = shown;
  const stretch = told.classes.length > 2 ? 1 : 255;
  const values = { mask: (place) => stretch * mask[place], probability: (place) => 255 * probability[place], spread: (place) => 255 * spread[place] }[kind];
  const canvas = document.createElement("canvas");
  drawn(canvas, layout, image, (place) => Array(3).fill(Math.round(values(place))));
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${opened.name.replace(/(\.nii)?\.\w+$/, "")}_${kind}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

at("file").addEventListener("change", () => {
  open(at("file").files[0]);
  at("file").value = ""; // the same file again is a change too
});
at("slice").addEventListener("input", sliced);
at("slice").addEventListener("change", segment);
at("members").addEventListener("change", segment);
at("seed").addEventListener("change", segment);
at("again").addEventListener("click", segment);
at("engine").addEventListener("change", () => load(at("engine").value).then(segment));
at("filled").addEventListener("change", () => shown && show());
for (const kind of ["mask", "probability", "spread"]) at(`save-${kind}`).addEventListener("click", () => save(kind));

for (const name of ["dragenter", "dragover"]) document.addEventListener(name, (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => event.relatedTarget ?? at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  open(event.dataTransfer.files[0]);
});

if (navigator.gpu) {
  navigator.gpu.requestAdapter().then((adapter) => adapter && at("engine").add(new Option("graphics card (WebGPU)", "webgpu")), () => {});
}
at("engine-field").hidden = !navigator.gpu;
load("wasm");
