// DICOM images whose pixels are not compressed: implicit or explicit VR, little endian.

const PLAIN = { "1.2.840.10008.1.2": false, "1.2.840.10008.1.2.1": true }; // transfer syntaxes: is the VR written?
const LONG = new Set(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]); // with a length of four bytes
const [ITEM, ITEM_END, SEQUENCE_END] = [0xfffee000, 0xfffee00d, 0xfffee0dd];
const UNDEFINED = 0xffffffff;

export function isDicom(view) {
  return view.byteLength > 132 && view.getUint32(128, false) === 0x4449434d; // DICM
}

// {shape: [columns, rows, frames], channels: 1, at(voxel): number}; voxels are counted along the columns' axis first, as in a volume.
export function readDicom(view) {
  const found = elements(view);
  const number = (tag, otherwise) => {
    const part = found.get(tag);
    if (!part || !part.length) return otherwise;
    return part.vr === "DS" || part.vr === "IS" ? Number.parseFloat(text(view, part)) : view.getUint16(part.at, true);
  };
  const decimal = (tag, otherwise) => (found.get(tag)?.length ? Number.parseFloat(text(view, found.get(tag))) : otherwise);
  const [rows, columns] = [number(0x00280010, 0), number(0x00280011, 0)];
  const pixels = found.get(0x7fe00010);
  if (!pixels || !rows || !columns) throw new Error("this DICOM file holds no image; choose one with pixels");
  const photometric = found.has(0x00280004) ? text(view, found.get(0x00280004)) : "";
  if (photometric !== "MONOCHROME2" || number(0x00280002, 1) !== 1)
    throw new Error(`this DICOM image is of the kind ${photometric || "unknown"} where a slice of CT or MR is MONOCHROME2; save it as PNG`);
  const frames = Math.max(1, Math.round(decimal(0x00280008, 1)));
  const allocated = number(0x00280100, 16);
  const stored = number(0x00280101, allocated);
  const signed = number(0x00280103, 0) === 1;
  if (allocated !== 8 && allocated !== 16) throw new Error(`this DICOM image has ${allocated} bits a pixel; 8 and 16 are read`);
  const bytes = allocated / 8;
  if (rows * columns * frames * bytes > pixels.length) throw new Error("this DICOM image is truncated: copy it again from its origin");
  const [slope, inter] = [decimal(0x00281053, 1), decimal(0x00281052, 0)];
  const unused = 32 - stored;
  const at = (voxel) => {
    const raw = bytes === 1 ? view.getUint8(pixels.at + voxel) : view.getUint16(pixels.at + 2 * voxel, true);
    return (signed ? (raw << unused) >> unused : (raw << unused) >>> unused) * slope + inter;
  };
  return { shape: [columns, rows, frames], channels: 1, at };
}

// The elements of the first level by tag: {vr, at, length}.
function elements(view) {
  const found = new Map();
  let at = 132;
  let explicit = true; // the first group always is
  let syntax = null;
  while (at + 8 <= view.byteLength) {
    const group = view.getUint16(at, true);
    if (group !== 2 && syntax === null) {
      const part = found.get(0x00020010);
      syntax = part ? text(view, part) : "1.2.840.10008.1.2";
      if (!(syntax in PLAIN))
        throw new Error(
          `this DICOM image is compressed or big endian (transfer syntax ${syntax}), which this page does not unpack; ` +
            "save it uncompressed (gdcmconv --raw in.dcm out.dcm), or use somite predict, which reads it",
        );
      explicit = PLAIN[syntax];
    }
    const part = element(view, at, explicit);
    if (part.length === UNDEFINED) {
      at = skipped(view, part.at, explicit && part.vr !== "UN");
    } else {
      found.set(part.tag, part);
      at = part.at + part.length;
    }
    if (part.tag === 0x7fe00010) break;
  }
  return found;
}

function element(view, at, explicit) {
  const tag = view.getUint16(at, true) * 65536 + view.getUint16(at + 2, true);
  if (!explicit || tag >= ITEM) return { tag, vr: vrOf(tag), at: at + 8, length: view.getUint32(at + 4, true) };
  const vr = String.fromCharCode(view.getUint8(at + 4), view.getUint8(at + 5));
  return LONG.has(vr) ? { tag, vr, at: at + 12, length: view.getUint32(at + 8, true) } : { tag, vr, at: at + 8, length: view.getUint16(at + 6, true) };
}

function vrOf(tag) { // of the tags that are looked at, where the file does not write it
  return { 0x00280008: "IS", 0x00281052: "DS", 0x00281053: "DS" }[tag] ?? "";
}

// Behind a sequence or item of unknown length that begins at `at`.
function skipped(view, at, explicit) {
  while (at + 8 <= view.byteLength) {
    const part = element(view, at, explicit);
    if (part.tag === SEQUENCE_END || part.tag === ITEM_END) return part.at;
    at = part.length === UNDEFINED ? skipped(view, part.at, part.tag === ITEM ? explicit : explicit && part.vr !== "UN") : part.at + part.length;
  }
  throw new Error("this DICOM file is truncated or damaged: copy it again from its origin");
}

function text(view, { at, length }) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at, length);
  return new TextDecoder("ascii").decode(bytes).replace(/[\0 ]+$/, "").trim();
}
