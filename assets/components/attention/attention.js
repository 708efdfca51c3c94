// What pictures of attention share: words and numbers, colour, one head drawn large or as a thumbnail, and the way its
// weights come into the browser. Put before the script of a picture, as one module with it.

const FIXED_POINT = 65535; // lab/figures/heads.py: weights are unsigned 16-bit fixed point
const QUERY = "#0072B2";
const KEY = "#E69F00";
const NOT_LATIN = /[\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF\uFF00-\uFFEF\u{20000}-\u{3FFFF}]/u;

// ---------------------------------------------------------------- text and numbers

function fill(template, values) {
  return (template ?? "").replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

function visible(token) {
  return token.trim() === "" ? "␣" : token;
}

export function formatWeight(weight) {
  return weight.toFixed(weight >= 0.1 ? 3 : 4);
}

function formatShare(share) {
  return Math.round(100 * share) + " %";
}

// ---------------------------------------------------------------- colour

function linear(channel) {
  const c = channel / 255;
  return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
}

function gamma(c) {
  const clipped = Math.min(1, Math.max(0, c));
  return Math.round(255 * (clipped <= 0.0031308 ? 12.92 * clipped : 1.055 * clipped ** (1 / 2.4) - 0.055));
}

function toOklab([red, green, blue]) {
  const [r, g, b] = [linear(red), linear(green), linear(blue)];
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function fromOklab([L, a, b]) {
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    gamma(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    gamma(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    gamma(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

function css([red, green, blue]) {
  return `rgb(${red},${green},${blue})`;
}

function parseColour(text) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = text;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

function mix(from, to, share) {
  const [a, b] = [toOklab(from), toOklab(to)];
  return fromOklab(a.map((value, i) => value + (b[i] - value) * share));
}

// From the paper's colour to the end of one hue (that of the scores, which the weights come from), lightness in even
// steps; chroma bulges in the middle so that middle weights do not look grey.
function colourRamp(paper, dark) {
  const hue = (345 * Math.PI) / 180;
  const [endLight, endChroma, bulge] = dark ? [0.95, 0.05, 0.14] : [0.26, 0.11, 0.09];
  const start = toOklab(paper);
  const end = [endLight, endChroma * Math.cos(hue), endChroma * Math.sin(hue)];
  return Array.from({ length: 256 }, (_, i) => {
    const t = i / 255;
    const extra = bulge * Math.sin(Math.PI * t);
    return fromOklab([
      start[0] + (end[0] - start[0]) * t,
      start[1] + (end[1] - start[1]) * t + extra * Math.cos(hue),
      start[2] + (end[2] - start[2]) * t + extra * Math.sin(hue),
    ]);
  });
}

function readTheme(root) {
  const style = getComputedStyle(root);
  const paper = parseColour(style.backgroundColor);
  const ink = parseColour(style.color);
  const dark = toOklab(paper)[0] < 0.5;
  const ramp = colourRamp(paper, dark);
  const unit = Math.max(0.75, parseFloat(getComputedStyle(document.documentElement).fontSize) / 16);
  const absent = mix(paper, ink, 0.13);
  return {
    key: [style.backgroundColor, style.color, style.fontFamily, unit, devicePixelRatio].join("|"),
    paper: css(paper),
    ink: css(ink),
    quiet: css(mix(paper, ink, 0.7)),
    line: css(mix(paper, ink, 0.22)),
    hatch: css(mix(paper, ink, 0.3)),
    absent: css(absent),
    // Label colours keep a contrast of 4.5 to the paper; the bands use the plain colours.
    query: dark ? "#56B4E9" : QUERY,
    key_: dark ? "#F0B840" : "#9A6700",
    dark,
    font: style.fontFamily,
    size: Math.max(12, 12 * unit),
    unit,
    ramp: ramp.map(css),
    ramp32: Uint32Array.from(ramp, ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0),
    absent32: ((255 << 24) | (absent[2] << 16) | (absent[1] << 8) | absent[0]) >>> 0,
  };
}

// ---------------------------------------------------------------- data

function decodeBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function decodeMap(described, words) {
  const cells = described.queries * described.keys;
  const bits = decodeBase64(described.mask);
  const mask = new Uint8Array(cells);
  for (let i = 0; i < cells; i++) mask[i] = (bits[i >> 3] >> (i & 7)) & 1;
  const size = described.layers * described.heads * cells;
  return { ...described, cells, mask, weights: words.subarray(described.offset, described.offset + size), summaries: new Map() };
}

// The fixed-point weights of a head, or of a summary over the heads of its layer.
function headWeights(map, layer, head) {
  const at = (h) => (layer * map.heads + h) * map.cells;
  if (typeof head === "number") return map.weights.subarray(at(head), at(head) + map.cells);
  const name = `${layer}.${head}`;
  if (!map.summaries.has(name)) {
    const summary = new Float32Array(map.cells);
    for (let h = 0; h < map.heads; h++) {
      const weights = map.weights.subarray(at(h), at(h) + map.cells);
      for (let i = 0; i < map.cells; i++) {
        if (head === "max") summary[i] = Math.max(summary[i], weights[i]);
        else summary[i] += weights[i] / map.heads;
      }
    }
    map.summaries.set(name, summary);
  }
  return map.summaries.get(name);
}

function largest(weights) {
  let top = 1;
  for (const weight of weights) if (weight > top) top = weight;
  return top;
}

function headAt(map, column) {
  return column < map.heads ? column : column === map.heads ? "mean" : "max";
}

function columnOf(map, head) {
  return head === "mean" ? map.heads : head === "max" ? map.heads + 1 : head;
}

// ---------------------------------------------------------------- drawing: a list of shapes, to canvas or to SVG

let measurer = null;

function textWidth(text, size, font, weight = 400) {
  measurer ??= document.createElement("canvas").getContext("2d");
  measurer.font = `${weight} ${size}px ${font}`;
  return measurer.measureText(text).width;
}

function shorten(text, room, size, font) {
  if (textWidth(text, size, font) <= room) return text;
  const characters = [...text];
  while (characters.length > 1 && textWidth(characters.join("") + "…", size, font) > room) characters.pop();
  return characters.join("") + "…";
}

function makeHatch(context, colour, scale) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = Math.round(6 * scale);
  const pen = tile.getContext("2d");
  pen.strokeStyle = colour;
  pen.lineWidth = scale;
  pen.beginPath();
  for (const shift of [-tile.width, 0, tile.width]) {
    pen.moveTo(shift, tile.height);
    pen.lineTo(shift + tile.width, 0);
  }
  pen.stroke();
  const pattern = context.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(1 / scale));
  return pattern;
}

function paint(context, shapes, theme, scale) {
  let hatch = null;
  for (const shape of shapes) {
    if (shape.kind === "rect") {
      context.fillStyle = shape.fill;
      context.fillRect(shape.x, shape.y, shape.width, shape.height);
    } else if (shape.kind === "hatch") {
      hatch ??= makeHatch(context, theme.hatch, scale);
      context.fillStyle = shape.small ? theme.absent : hatch;
      context.fillRect(shape.x, shape.y, shape.width, shape.height);
    } else if (shape.kind === "frame") {
      context.strokeStyle = shape.stroke;
      context.lineWidth = shape.thick;
      context.strokeRect(shape.x, shape.y, shape.width, shape.height);
    } else {
      context.save();
      context.translate(shape.x, shape.y);
      if (shape.turn) context.rotate((shape.turn * Math.PI) / 180);
      context.font = `${shape.weight ?? 400} ${shape.size}px ${theme.font}`;
      context.textAlign = shape.align ?? "left";
      context.textBaseline = "middle";
      context.fillStyle = shape.fill;
      context.fillText(shape.text, 0, 0);
      context.restore();
    }
  }
}

function escapeXml(text) {
  return text
    .replace(/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g, "\uFFFD")
    .replace(/[\u0000-\u0008\u000B\u000C\u000E-\u001F\uFFFE\uFFFF]/g, "\uFFFD")
    .replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

// Asked of the browser, so that the downloaded page holds no address of any kind.
function svgNamespace() {
  const template = document.createElement("template");
  template.innerHTML = "<svg></svg>";
  return template.content.firstChild.namespaceURI;
}

function toSvg(figure, theme) {
  const number = (value) => String(Math.round(value * 100) / 100);
  const box = (s) => `x="${number(s.x)}" y="${number(s.y)}" width="${number(s.width)}" height="${number(s.height)}"`;
  const anchors = { left: "start", center: "middle", right: "end" };
  const lines = figure.shapes.map((s) => {
    if (s.kind === "rect") return `<rect ${box(s)} fill="${s.fill}"/>`;
    if (s.kind === "hatch") return `<rect ${box(s)} fill="url(#hatch)"/>`;
    if (s.kind === "frame") return `<rect ${box(s)} fill="none" stroke="${s.stroke}" stroke-width="${s.thick}"/>`;
    const turn = s.turn ? ` transform="rotate(${s.turn} ${number(s.x)} ${number(s.y)})"` : "";
    const weight = s.weight ? ` font-weight="${s.weight}"` : "";
    return (
      `<text x="${number(s.x)}" y="${number(s.y)}" font-size="${number(s.size)}" fill="${s.fill}"` +
      ` text-anchor="${anchors[s.align ?? "left"]}" dominant-baseline="central"${weight}${turn}>${escapeXml(s.text)}</text>`
    );
  });
  const [width, height] = [Math.ceil(figure.width), Math.ceil(figure.height)];
  return (
    `<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="${svgNamespace()}" width="${width}" height="${height}"` +
    ` viewBox="0 0 ${width} ${height}" font-family="${escapeXml(theme.font)}">\n<title>${escapeXml(figure.title)}</title>\n` +
    `<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse">` +
    `<path d="M0 6L6 0" stroke="${theme.hatch}" stroke-width="1"/></pattern></defs>\n` +
    `<rect width="${width}" height="${height}" fill="${theme.paper}"/>\n${lines.join("\n")}\n</svg>\n`
  );
}

function stackable(token) {
  return NOT_LATIN.test(token);
}

// The large head. `room` is the width and height to fit into; with `cell` given the picture takes what it needs and
// nothing is shortened or left out (downloads).
function largeFigure(map, layer, head, scale, theme, strings, { room, cell: fixedCell, snap }) {
  const size = theme.size;
  const limit = fixedCell ? Infinity : Math.min(96 * theme.unit, (room.width ?? 400) * (map.predicted_tokens ? 0.2 : 0.26));
  const queries = map.query_tokens.map((token) => shorten(visible(token), limit, size, theme.font));
  const predicted = map.predicted_tokens?.map((token) => shorten(visible(token), limit, size, theme.font));
  // Room is kept for bold, in which the labels of lit tokens are written.
  const bold = (text) => textWidth(text, size, theme.font, 700);
  const widest = (labels) => Math.max(0, ...labels.map(bold));
  const left = Math.max(widest(queries), predicted ? bold(strings.reads) : 0) + 8;
  const rightLabels = predicted ? Math.max(widest(predicted), bold(strings.predicts)) + 10 : 2;
  const bottom = predicted ? size + 8 : 2;
  const topLimit = fixedCell ? Infinity : 84 * theme.unit;
  const stackLimit = fixedCell ? Infinity : 5;

  let layout = null;
  for (const turn of [45, 62, 90]) {
    const [sine, cosine] = [Math.sin((turn * Math.PI) / 180), Math.cos((turn * Math.PI) / 180)];
    const columns = map.key_tokens.map((token) => {
      const text = visible(token);
      if (stackable(text)) {
        const characters = [...text];
        return characters.length > stackLimit ? [...characters.slice(0, stackLimit - 1), "…"] : characters;
      }
      return shorten(text, topLimit, size, theme.font);
    });
    let top = 0;
    columns.forEach((label) => {
      const reach = Array.isArray(label)
        ? label.length * size * 1.08
        : bold(label) * sine + size * 0.6 * cosine;
      top = Math.max(top, reach + 8);
    });
    const fit = (right) =>
      fixedCell ??
      Math.max(
        0.5,
        Math.min((room.width - left - right) / map.keys, (room.height - top - bottom) / map.queries, 56 * theme.unit),
      );
    let right = rightLabels;
    let cell = fit(right);
    // Tilted labels of the last columns reach past the matrix.
    for (let again = 0; again < 2; again++) {
      columns.forEach((label, k) => {
        if (!Array.isArray(label)) {
          const reach = bold(label) * cosine + size * 0.5 * sine - (map.keys - k - 0.5) * cell;
          right = Math.max(right, reach + 2);
        }
      });
      cell = fit(right);
    }
    if (snap && cell >= 4) cell = Math.floor(cell * snap) / snap;
    layout = { turn, columns, top, right, cell };
    // A tilted label must not lie over an upright one to its right.
    const covers = columns.some(
      (label, k) => !Array.isArray(label) && Array.isArray(columns[k + 1]) && bold(label) * cosine > 0.9 * cell,
    );
    if (cell * sine >= size * 1.02 && !covers) break;
  }

  const { turn, columns, top, right, cell } = layout;
  const weights = headWeights(map, layer, head);
  const most = scale === "unit" ? FIXED_POINT : largest(weights);
  const edge = (origin, i) => (snap ? Math.round((origin + i * cell) * snap) / snap : origin + i * cell);
  const gap = cell >= 12 ? 1 : 0;
  const small = cell < 5;
  const shapes = [];
  for (let q = 0; q < map.queries; q++) {
    const [y0, y1] = [edge(top, q), edge(top, q + 1)];
    let absentFrom = -1;
    for (let k = 0; k <= map.keys; k++) {
      const allowed = k === map.keys || map.mask[q * map.keys + k];
      if (!allowed && absentFrom < 0) absentFrom = k;
      if (allowed && absentFrom >= 0) {
        const x0 = edge(left, absentFrom);
        shapes.push({ kind: "hatch", x: x0, y: y0, width: edge(left, k) - x0, height: y1 - y0, small });
        absentFrom = -1;
      }
      if (k === map.keys || !allowed) continue;
      const [x0, x1] = [edge(left, k), edge(left, k + 1)];
      const weight = weights[q * map.keys + k];
      const level = Math.min(255, Math.round((255 * weight) / most));
      shapes.push({ kind: "rect", x: x0, y: y0, width: x1 - x0 - gap, height: y1 - y0 - gap, fill: theme.ramp[level] });
      if (cell >= 2.7 * size && weight >= 0.005 * FIXED_POINT) {
        shapes.push({
          kind: "text",
          x: (x0 + x1 - gap) / 2,
          y: (y0 + y1 - gap) / 2,
          text: (weight / FIXED_POINT).toFixed(2),
          size,
          align: "center",
          fill: level > 110 ? theme.paper : theme.ink,
        });
      }
    }
  }
  shapes.push({ kind: "frame", x: left, y: top, width: edge(left, map.keys) - left - gap, height: edge(top, map.queries) - top - gap, stroke: theme.line, thick: 1 });

  const height = top + map.queries * cell + bottom;
  if (predicted) {
    const y = top + map.queries * cell + size * 0.5 + 5;
    shapes.push({ kind: "text", x: left - 6, y, text: strings.reads, size, align: "right", fill: theme.quiet });
    shapes.push({ kind: "text", x: left + map.keys * cell + 6, y, text: strings.predicts, size, fill: theme.quiet });
  }

  const every = Math.max(1, Math.ceil((size * (fixedCell ? 0.5 : 1)) / cell));
  // Every label that has room; a lit one always, in bold, and none that it would touch.
  const shown = (count, lit) => {
    const near = (size * 1.1) / cell;
    const positions = [];
    for (let i = 0; i < count; i += every) {
      if (!lit.includes(i) && lit.every((other) => Math.abs(other - i) >= near)) positions.push(i);
    }
    return [...positions, ...lit];
  };
  const labels = (rows = [], litColumns = []) => {
    const made = [];
    const width = left + map.keys * cell + right;
    for (const q of shown(map.queries, rows)) {
      const lit = rows.includes(q);
      const y = top + (q + 0.5) * cell;
      const weight = lit ? 700 : undefined;
      const text = lit ? visible(map.query_tokens[q]) : queries[q];
      const x = lit ? Math.max(left - 6, bold(text) + 1) : left - 6;
      made.push({ kind: "text", x, y, text, size, weight, align: "right", fill: theme.query, pill: lit });
      if (!predicted) continue;
      const told = lit ? visible(map.predicted_tokens[q]) : predicted[q];
      const start = left + map.keys * cell + 6;
      made.push({ kind: "text", x: lit ? Math.min(start, width - bold(told) - 1) : start, y, text: told, size, weight, fill: theme.ink, pill: lit });
    }
    for (const k of shown(map.keys, litColumns)) {
      const lit = litColumns.includes(k);
      const weight = lit ? 700 : undefined;
      const label = columns[k];
      const x = left + (k + 0.5) * cell;
      if (Array.isArray(label)) {
        label.forEach((character, i) => {
          const y = top - 4 - (label.length - i - 0.5) * size * 1.08;
          made.push({ kind: "text", x, y, text: character, size, weight, align: "center", fill: theme.key_, pill: lit });
        });
      } else {
        made.push({ kind: "text", x: x + (turn === 90 ? 0 : size * 0.2), y: top - 6, text: label, size, weight, turn: -turn, fill: theme.key_, pill: lit });
      }
    }
    return made;
  };
  return { shapes, labels, left, top, cell, width: left + map.keys * cell + right, height, most };
}

function element(tag, className, parent, attributes = {}) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent?.append(made);
  return made;
}

function sizeCanvas(canvas, width, height, scale) {
  const [w, h] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${w / scale}px`;
    canvas.style.height = `${h / scale}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, w, h);
  return context;
}

// Draws heads of a map w pixels wide and h high; each image is good until the next. A pixel shows the largest weight
// beneath it, so that a single strong cell stays visible.
function thumbnails(map, w, h, theme) {
  const spans = (pixels, cells) =>
    Array.from({ length: pixels }, (_, i) => {
      const from = Math.floor((i * cells) / pixels);
      return [from, cells <= pixels ? from + 1 : Math.max(from + 1, Math.floor(((i + 1) * cells) / pixels))];
    });
  const [rows, columns] = [spans(h, map.queries), spans(w, map.keys)];
  const image = new ImageData(w, h);
  const pixels = new Uint32Array(image.data.buffer);
  return (weights, most) => {
    let at = 0;
    for (const [q0, q1] of rows) {
      for (const [k0, k1] of columns) {
        let top = -1;
        for (let q = q0; q < q1; q++) {
          for (let cell = q * map.keys + k0; cell < q * map.keys + k1; cell++) {
            if (map.mask[cell] && weights[cell] > top) top = weights[cell];
          }
        }
        pixels[at++] = top < 0 ? theme.absent32 : theme.ramp32[Math.min(255, Math.round((255 * top) / most))];
      }
    }
    return image;
  };
}

// ---------------------------------------------------------------- what stands on and beside a picture

// Bands over lit rows and columns, and the labels: those of lit tokens are bold and push aside what they would cover.
function drawLit(context, figure, map, rows, columns, theme) {
  const { left, top, cell } = figure;
  const [right, bottom] = [left + map.keys * cell, top + map.queries * cell];
  const band = (x, y, w, h, colour) => {
    context.fillStyle = colour;
    context.globalAlpha = 0.16;
    context.fillRect(x, y, w, h);
    context.globalAlpha = 1;
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.strokeRect(x, y, w, h);
  };
  for (const k of columns) band(left + k * cell, top, cell, bottom - top, KEY);
  for (const q of rows) band(left, top + q * cell, right - left, cell, QUERY);
  const labels = figure.labels(rows, columns);
  for (const { x, y, text, size, weight, align, turn } of labels.filter((shape) => shape.pill)) {
    const width = textWidth(text, size, theme.font, weight);
    context.save();
    context.translate(x, y);
    if (turn) context.rotate((turn * Math.PI) / 180);
    context.fillStyle = theme.paper;
    context.fillRect(align === "right" ? -width - 2 : align === "center" ? -width / 2 - 2 : -2, -size * 0.6, width + 4, size * 1.2);
    context.restore();
  }
  paint(context, labels, theme, devicePixelRatio);
}

// Lines of [class, text] or [class, [[class, text], ...]].
function writeLines(parent, lines) {
  parent.replaceChildren();
  for (const [className, content] of lines) {
    const line = element("span", className, parent);
    if (typeof content === "string") line.textContent = content;
    else for (const [role, text] of content) element("span", role, line).textContent = text;
  }
}

function plainLines(lines) {
  return lines.map(([, content]) => (typeof content === "string" ? content : content.map(([, text]) => text).join(""))).join(", ");
}

function placeTooltip(root, tooltip, event, lines) {
  if (!lines) {
    tooltip.hidden = true;
    return;
  }
  writeLines(tooltip, lines);
  tooltip.hidden = false;
  const box = root.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const { offsetWidth, offsetHeight } = tooltip;
  const goesLeft = x + 16 + offsetWidth > box.width;
  const goesUp = event.clientY + 16 + offsetHeight > window.innerHeight;
  tooltip.style.left = `${Math.max(0, goesLeft ? x - 12 - offsetWidth : x + 16)}px`;
  tooltip.style.top = `${goesUp ? y - 12 - offsetHeight : y + 16}px`;
}

function drawRamp(canvas, theme) {
  const [width, height] = [110 * theme.unit, theme.size];
  const context = sizeCanvas(canvas, width, height, devicePixelRatio);
  theme.ramp.forEach((colour, i) => {
    context.fillStyle = colour;
    context.fillRect((i * width) / 256, 0, width / 256 + 1, height);
  });
  context.strokeStyle = theme.line;
  context.strokeRect(0.5, 0.5, width - 1, height - 1);
}

function drawSwatch(canvas, theme) {
  const [width, height] = [theme.size * 1.5, theme.size];
  const context = sizeCanvas(canvas, width, height, devicePixelRatio);
  paint(context, [{ kind: "hatch", x: 0, y: 0, width, height }], theme, devicePixelRatio);
  context.strokeStyle = theme.line;
  context.strokeRect(0.5, 0.5, width - 1, height - 1);
}

// ---------------------------------------------------------------- Streamlit
//
// Two components share a module (Streamlit loads equal text once): one carries the block of weights, which its message
// cache keeps in the browser, the other the small rest, which changes with each selection.

const blocks = new Map(); // digest -> { words, holders }
const held = new Map(); // component instance -> digest
const pictures = new Map(); // component instance -> { picture, data }

function wordsOf(bytes) {
  // Copied: the block's own start need not be at an even address. The first 16 bytes are the digest.
  return new Uint16Array(bytes.slice(16).buffer);
}

function release(key) {
  const digest = held.get(key);
  const block = blocks.get(digest);
  if (block && --block.holders === 0) blocks.delete(digest);
  held.delete(key);
}

function hold(key, bytes, show) {
  const digest = Array.from(bytes.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (held.get(key) === digest) return;
  if (!blocks.has(digest)) blocks.set(digest, { words: wordsOf(bytes), holders: 0 });
  blocks.get(digest).holders += 1;
  release(key);
  held.set(key, digest);
  for (const [instance, entry] of pictures) if (entry.data.hash === digest) show(instance);
}

// Both components as Streamlit calls them. `open(root, data, words, send)` draws a picture below the element that
// `selector` finds; it has `data`, `words`, `update(data, words)` and `destroy()`, and tells its state with
// `send(name, value)`.
function inStreamlit(selector, open) {
  const show = (key) => {
    const entry = pictures.get(key);
    const same = entry.picture?.data?.hash === entry.data.hash;
    const words = same ? entry.picture.words : blocks.get(entry.data.hash)?.words;
    if (!words) return;
    if (entry.picture) entry.picture.update(entry.data, words);
    else entry.picture = open(entry.root, entry.data, words, (name, value) => entry.send(name, value));
  };
  return ({ data, key, parentElement, setStateValue }) => {
    if (data instanceof Uint8Array) {
      hold(key, data, show);
      return () => release(key);
    }
    const entry = pictures.get(key) ?? { root: parentElement.querySelector(selector), picture: null };
    entry.data = data;
    entry.send = setStateValue;
    pictures.set(key, entry);
    show(key);
    return () => {
      entry.picture?.destroy();
      pictures.delete(key);
    };
  };
}
