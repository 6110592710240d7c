// NIfTI-1 in one file (.nii, .nii.gz): voxels as numbers, axes as the file has them.

const KINDS = { // of `datatype`: bytes, and how one number is read
  2: [1, "getUint8"], 4: [2, "getInt16"], 8: [4, "getInt32"], 16: [4, "getFloat32"], 64: [8, "getFloat64"],
  256: [1, "getInt8"], 512: [2, "getUint16"], 768: [4, "getUint32"],
};

export function isNifti(view) {
  return view.byteLength >= 352 && (view.getInt32(0, true) === 348 || view.getInt32(0, false) === 348);
}

// {shape: [x, y, z], channels, at(voxel): number}; voxels are counted along x first.
export function readNifti(view) {
  const little = view.getInt32(0, true) === 348;
  const magic = String.fromCharCode(view.getUint8(344), view.getUint8(345), view.getUint8(346));
  if (magic === "ni1") throw new Error("this is the header of a NIfTI in two files; save it as one .nii or .nii.gz");
  if (magic !== "n+1") throw new Error("this is no NIfTI-1 file; save it as .nii or .nii.gz");
  const count = view.getInt16(40, little);
  if (count < 2 || count > 7) throw new Error(`this NIfTI says it has ${count} axes; it is damaged`);
  const dims = Array.from({ length: count }, (_, axis) => view.getInt16(42 + 2 * axis, little));
  while (dims.length > 3 && dims[dims.length - 1] === 1) dims.pop();
  while (dims.length < 3) dims.push(1);
  if (dims.length > 4 || dims.some((n) => n < 1)) throw new Error(`this NIfTI is ${dims.join(" x ")}; give a volume of three axes`);
  const kind = KINDS[view.getInt16(70, little)];
  if (!kind) throw new Error(`this NIfTI holds numbers of type ${view.getInt16(70, little)}, which this page does not read; save it as float32 or int16`);
  const [bytes, get] = kind;
  const start = Math.max(352, Math.floor(view.getFloat32(108, little)));
  const voxels = dims.reduce((a, b) => a * b, 1);
  if (start + voxels * bytes > view.byteLength) throw new Error("this NIfTI is truncated: copy it again from its origin");
  let slope = view.getFloat32(112, little);
  let inter = view.getFloat32(116, little);
  if (!Number.isFinite(slope) || slope === 0) [slope, inter] = [1, 0];
  if (!Number.isFinite(inter)) inter = 0;
  const at = (voxel) => view[get](start + voxel * bytes, little) * slope + inter;
  return { shape: dims.slice(0, 3), channels: dims[3] ?? 1, at };
}

export async function gunzipped(buffer) {
  try {
    return await new Response(new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  } catch {
    throw new Error("this .gz file is truncated or damaged: copy it again from its origin");
  }
}
