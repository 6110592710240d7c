// A file becomes images as `somite predict` reads it: numbers (c, h, w), and how they are shown.

import { isDicom, readDicom } from "./dicom.js";
import { gunzipped, isNifti, readNifti } from "./nifti.js";
import { isDeepPng, readDeepPng } from "./png.js";

// {slices, first, slice(i): {channels, height, width, pixels}, shown, lossy}; shown: "photo", or of a volume "down" or "up", whither its second axis
// runs; lossy: a JPG, which each decoder rounds in its own way.
// axis: along which a volume is cut. Raises Error with one sentence for what cannot be read.
export async function readFile(file, axis) {
  let buffer = await file.arrayBuffer();
  if (!buffer.byteLength) throw new Error("this file is empty: copy it again from its origin");
  const head = new Uint8Array(buffer, 0, Math.min(4, buffer.byteLength));
  if (head[0] === 0x1f && head[1] === 0x8b) buffer = await gunzipped(buffer);
  const view = new DataView(buffer);
  if (isDicom(view)) return cut(readDicom(view), 2, "down");
  if (isNifti(view)) return cut(readNifti(view), axis, "up");
  const photo = isDeepPng(view) ? await readDeepPng(view) : await pictured(buffer);
  return { slices: 1, first: 0, shown: "photo", slice: () => photo, lossy: head[0] === 0xff && head[1] === 0xd8 };
}

function cut(volume, axis, shown) {
  const { shape, channels, at } = volume;
  const strides = [1, shape[0], shape[0] * shape[1]];
  const [down, across] = [0, 1, 2].filter((other) => other !== axis);
  const [height, width] = [shape[down], shape[across]];
  const slice = (number) => {
    const pixels = new Float32Array(channels * height * width);
    let place = 0;
    for (let channel = 0; channel < channels; channel++)
      for (let row = 0; row < height; row++)
        for (let column = 0; column < width; column++)
          pixels[place++] = at(channel * strides[2] * shape[2] + number * strides[axis] + row * strides[down] + column * strides[across]);
    if (!pixels.every(Number.isFinite)) throw new Error("this slice has voxels that are NaN or infinite: replace them, by 0 say");
    return { channels, height, width, pixels };
  };
  return { slices: shape[axis], first: shape[axis] >> 1, shown, slice };
}

// 8-bit pictures, as the browser decodes them: upright, without a change of colours.
async function pictured(buffer) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([buffer]), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error("this is no image that this page reads: give PNG, JPG, NIfTI (.nii, .nii.gz) or DICOM");
  }
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const count = width * height;
  let grey = true;
  for (let place = 0; place < count; place++) {
    const [r, g, b, alpha] = [data[4 * place], data[4 * place + 1], data[4 * place + 2], data[4 * place + 3]];
    if (alpha !== 255) throw new Error("this image has transparent pixels, whose colour is undefined; flatten it onto a background");
    grey &&= r === g && g === b;
  }
  const channels = grey ? 1 : 3;
  const pixels = new Float32Array(channels * count);
  for (let channel = 0; channel < channels; channel++)
    for (let place = 0; place < count; place++) pixels[channel * count + place] = data[4 * place + channel] / 255;
  return { channels, height, width, pixels };
}
