// The model, away from the page so that it stays awake. Messages: {load: "wasm" | "webgpu"}, or {image, members, seed}.

import { looked, noise } from "./noise.js";

let ort, session, told, engine;

async function load(wanted) {
  engine = wanted;
  told = await (await fetch("model.json")).json();
  ort = await import(wanted === "webgpu" ? "./runtime/ort.webgpu.min.mjs" : "./runtime/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  if (!globalThis.crossOriginIsolated) ort.env.wasm.numThreads = 1; // threads share memory, which a page without isolation may not
  const model = new Uint8Array(await (await fetch("model.onnx")).arrayBuffer());
  session = await ort.InferenceSession.create(model, { executionProviders: wanted === "webgpu" ? ["webgpu", "wasm"] : ["wasm"] });
  return told;
}

async function answer({ image, members, seed }) {
  const { channels, height, width, pixels } = image;
  const [rows, columns] = looked(told.size, height, width);
  const given = { image: new ort.Tensor("float32", pixels, [1, channels, height, width]) };
  if (told.inputs.includes("noise")) {
    const shape = [1, members, told.noise_channels, rows, columns];
    given.noise = new ort.Tensor("float32", noise(seed, members, told.noise_channels, rows, columns), shape);
  }
  if (told.inputs.includes("grid")) given.grid = new ort.Tensor("float32", new Float32Array(rows * columns), [rows, columns]);
  const began = performance.now();
  const found = await session.run(given);
  const maps = {};
  for (const name of ["mask", "probability", "spread"]) maps[name] = await found[name].getData();
  return { ...maps, height, width, seconds: (performance.now() - began) / 1000, engine };
}

onmessage = async ({ data }) => {
  try {
    postMessage({ id: data.id, value: await (data.load ? load(data.load) : answer(data)) });
  } catch (error) {
    postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
};
