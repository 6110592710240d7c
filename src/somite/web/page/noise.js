// The noise that a run begins with, number by number that of somite/export/noise.py: a function of seed, member, channel, row and column.

const STEP = 0x9e3779b9; // 2^32 over the golden ratio

function mixed(key, at) {
  let x = (key + Math.imul(at + 1, STEP)) >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

export function noise(seed, members, channels, height, width) {
  const found = new Float32Array(members * channels * height * width);
  let at = 0;
  for (let member = 0; member < members; member++) {
    const drawn = mixed(seed >>> 0, member);
    for (let channel = 0; channel < channels; channel++) {
      const map = mixed(drawn, channel);
      for (let row = 0; row < height; row++) {
        const line = mixed(map, row);
        for (let column = 0; column < width; column++) {
          const key = mixed(line, column);
          const radius = Math.sqrt(-2 * Math.log((mixed(key, 0) + 1) / 2 ** 32));
          found[at++] = radius * Math.cos(2 * Math.PI * (mixed(key, 1) / 2 ** 32));
        }
      }
    }
  }
  return found;
}

// At what size the network looks at an image: null is its own, two numbers are that size, one number that of the longer side.
export function looked(size, height, width) {
  if (size === null) return [height, width];
  if (Array.isArray(size)) return size;
  return [height, width].map((n) => Math.max(1, evenly((n * size) / Math.max(height, width))));
}

function evenly(x) { // as Python rounds: halves to the even neighbour
  const below = Math.floor(x);
  if (x - below !== 0.5) return Math.round(x);
  return below % 2 ? below + 1 : below;
}
