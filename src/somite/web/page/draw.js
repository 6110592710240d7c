// Maps on canvases. Colours are Okabe and Ito's, which people with any colour vision tell apart, and magma's.

const CLASSES = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [204, 121, 167], [213, 94, 0], [0, 114, 178]];
const MAGMA = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];

// How a place of the numbers, (row, column), is one of the canvas. See `shown` in read.js.
export function laid({ height, width, shown }) {
  if (shown === "photo") return { across: width, down: height, to: (row, column) => row * width + column };
  const line = shown === "up" ? (column) => width - 1 - column : (column) => column;
  return { across: height, down: width, to: (row, column) => line(column) * height + row };
}

export function drawn(canvas, layout, { height, width }, colour) {
  canvas.width = layout.across;
  canvas.height = layout.down;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(layout.across, layout.down);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) {
      const [r, g, b] = colour(row * width + column, row, column);
      picture.data.set([r, g, b, 255], 4 * layout.to(row, column));
    }
  context.putImageData(picture, 0, 0);
}

// The image, stretched to what can be seen.
export function grey({ channels, pixels, height, width }) {
  const count = height * width;
  const sorted = Float32Array.from({ length: Math.min(pixels.length, 20000) }, (_, i) => pixels[Math.floor((i * pixels.length) / Math.min(pixels.length, 20000))]).sort();
  const [low, high] = [sorted[Math.floor(0.005 * (sorted.length - 1))], sorted[Math.ceil(0.995 * (sorted.length - 1))]];
  const level = (value) => Math.max(0, Math.min(255, (255 * (value - low)) / Math.max(high - low, 1e-12)));
  return (place) => (channels === 3 ? [0, 1, 2] : [0, 0, 0]).map((channel) => level(pixels[channel * count + place]));
}

export function masked(under, mask, { height, width }, filled) {
  const edge = (place, row, column) =>
    row === 0 || column === 0 || row === height - 1 || column === width - 1 ||
    [place - 1, place + 1, place - width, place + width].some((other) => mask[other] !== mask[place]);
  return (place, row, column) => {
    const below = under(place);
    if (!mask[place]) return below;
    const colour = CLASSES[(mask[place] - 1) % CLASSES.length];
    if (edge(place, row, column)) return colour;
    return filled ? below.map((value, i) => 0.6 * value + 0.4 * colour[i]) : below;
  };
}

export function warm(values, top) {
  return (place) => {
    const at = Math.max(0, Math.min(1, values[place] / top)) * (MAGMA.length - 1);
    const below = Math.min(Math.floor(at), MAGMA.length - 2);
    return MAGMA[below].map((value, i) => value + (at - below) * (MAGMA[below + 1][i] - value));
  };
}
