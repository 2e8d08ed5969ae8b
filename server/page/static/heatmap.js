// What a network saw, drawn: the picture with its crop, and a map of the evidence over it.

const MAX_SIDE = 480; // pixels of the canvas

export async function drawSeen(canvas, answer, picture, map, strength) {
  const box = answer.input?.box ?? answer.heatmap?.box;
  if (box && picture) drawCrop(canvas, picture, box);
  else if (answer.input) drawInput(canvas, await decoded(answer));
  else if (picture) drawPicture(canvas, picture);
  if (map && strength > 0) drawMap(canvas, answer.heatmap, map, strength, box && picture ? box : null, picture);
}

function fit(canvas, width, height) {
  const scale = MAX_SIDE / Math.max(width, height);
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  return [canvas.getContext("2d"), scale];
}

function drawPicture(canvas, picture) {
  const [context] = fit(canvas, picture.width, picture.height);
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
}

// Outside of the crop the picture is dimmed.
function drawCrop(canvas, picture, { left, top, right, bottom }) {
  const [context, scale] = fit(canvas, picture.width, picture.height);
  context.globalAlpha = 0.25;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
  const [width, height] = [right - left, bottom - top];
  context.drawImage(picture, left, top, width, height,
    left * scale, top * scale, width * scale, height * scale);
}

const decodings = new WeakMap(); // by answer

function decoded(answer) {
  if (!decodings.has(answer)) {
    const image = new Image();
    image.src = `data:image/png;base64,${answer.input.png}`;
    decodings.set(answer, image.decode().then(() => image));
  }
  return decodings.get(answer);
}

function drawInput(canvas, image) {
  const [context] = fit(canvas, image.width, image.height);
  context.imageSmoothingEnabled = image.width > 64;
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
}

function drawMap(canvas, { height, width }, { values }, strength, box, picture) {
  const small = new OffscreenCanvas(width, height);
  const pixels = new ImageData(width, height);
  values.forEach((value, i) => pixels.data.set(colour(value), 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  const scale = picture ? canvas.width / picture.width : 1;
  const area = box
    ? [box.left, box.top, box.right - box.left, box.bottom - box.top].map((it) => it * scale)
    : [0, 0, canvas.width, canvas.height];
  context.globalAlpha = strength;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, ...area);
  context.globalAlpha = 1;
}

// From transparent blue over magenta to yellow: seen by those who do not tell red from green.
export function colour(value) {
  const red = Math.round(255 * Math.min(1, 0.15 + 1.5 * value));
  const green = Math.round(255 * Math.max(0, 1.7 * value - 0.7));
  const blue = Math.round(255 * (value < 0.5 ? 0.55 + 0.3 * value : 1.4 * (1 - value)));
  return [red, green, Math.max(0, blue), Math.round(255 * Math.min(1, 0.15 + value))];
}
