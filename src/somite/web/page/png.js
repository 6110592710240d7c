// PNG files of 16 bits, which browsers show at 8: exactly as the file has them. Not interlaced.

export function isDeepPng(view) {
  return view.byteLength > 29 && view.getUint32(0) === 0x89504e47 && view.getUint8(24) === 16;
}

// {channels: 1 or 3, height, width, pixels: Float32Array (c, h, w) in [0, 1]}
export async function readDeepPng(view) {
  const [width, height, kind] = [view.getUint32(16), view.getUint32(20), view.getUint8(25)];
  if (view.getUint8(28)) throw new Error("this PNG is interlaced with 16 bits; save it without interlacing");
  const samples = { 0: 1, 2: 3, 4: 2, 6: 4 }[kind];
  const parts = [];
  for (let at = 8; at + 12 <= view.byteLength; at += 12 + view.getUint32(at)) {
    if (view.getUint32(at + 4) === 0x49444154) parts.push(new Uint8Array(view.buffer, view.byteOffset + at + 8, view.getUint32(at)));
  }
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(stream).arrayBuffer());
  const step = 2 * samples;
  const line = step * width;
  if (raw.length < (line + 1) * height) throw new Error("this PNG is truncated: copy it again from its origin");
  const rows = unfiltered(raw, height, line, step);
  const channels = samples < 3 ? 1 : 3;
  const pixels = new Float32Array(channels * height * width);
  for (let place = 0; place < height * width; place++) {
    const sample = (channel) => rows[place * step + 2 * channel] * 256 + rows[place * step + 2 * channel + 1];
    if (samples % 2 === 0 && sample(samples - 1) !== 65535) throw new Error("this image has transparent pixels, whose colour is undefined; flatten it onto a background");
    for (let channel = 0; channel < channels; channel++) pixels[channel * height * width + place] = sample(channel) / 65535;
  }
  return { channels, height, width, pixels };
}

function unfiltered(raw, height, line, step) {
  const rows = new Uint8Array(line * height);
  for (let row = 0; row < height; row++) {
    const filter = raw[row * (line + 1)];
    for (let i = 0; i < line; i++) {
      const place = row * line + i;
      const left = i >= step ? rows[place - step] : 0;
      const up = row ? rows[place - line] : 0;
      const corner = i >= step && row ? rows[place - line - step] : 0;
      rows[place] = raw[row * (line + 1) + 1 + i] + guessed(filter, left, up, corner);
    }
  }
  return rows;
}

function guessed(filter, left, up, corner) {
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  if (filter !== 4) return 0;
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}
